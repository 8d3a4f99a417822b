"""Looking for persons: SQL proposes rows by index, the code compares each exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from psycopg import sql

from lethe.adapters.stores.sql.catalog import Column, Shape
from lethe.adapters.stores.sql.postgres import Cursor, compose, copy_in, fetch_in_chunks, listed, name, raw
from lethe.adapters.stores.sql.staging import seen_columns, uncleared
from lethe.adapters.stores.sql.values import CANONICAL, Tokens, encodable
from lethe.domain.identifiers import (
    BLANKS,
    IdentifierKind,
    PersonalText,
    masked_as_personal,
    same_email,
    spellings,
)
from lethe.ports.stores import AnswerUntrusted, Finding, FoundRecord, Wanted

ROW_SECURITY_OFF, EMPTY = "row-security-off", "empty"
_CANARY = -1
# One address on many rows stops for a person to look; reading all of a million rows would help nobody.
_MOST_PROPOSED = 2_000
_READ_AT_ONCE = 20_000
LONGEST_KEPT_KEY = 1024


@dataclass(frozen=True, slots=True)
class Searched:
    """A column to search by, and for which identifiers."""

    kind: IdentifierKind
    column: Column

    @property
    def staged(self) -> sql.Identifier:
        """Return the temporary table that holds what is looked for."""
        return name("pg_temp", f"lethe_wanted_{self.kind}")


@dataclass(frozen=True, slots=True)
class Match:
    """A row of the person that is wanted `ix`-th, and what the further columns hold that were asked for."""

    ix: int
    record: FoundRecord
    texts: tuple[PersonalText | None, ...] = ()


def searchable(shape: Shape, *, primary: bool) -> list[Searched]:
    """Return the columns by which persons can be looked for: the identifiers, and the Primary's own key."""
    mapping, columns = shape.mapping, shape.subjects.columns
    found = [
        Searched(IdentifierKind(kind), columns[column])
        for kind, column in mapping.identifiers.items()
        if kind in set(IdentifierKind)
    ]
    if primary and IdentifierKind.PRIMARY_KEY.value not in mapping.identifiers:
        found.append(Searched(IdentifierKind.PRIMARY_KEY, shape.key))
    return found


def _asked(search: Searched, wanted: Sequence[Wanted]) -> list[tuple[int, PersonalText]]:
    """Return what to search for in a column, each with the index of the person who is wanted by it."""
    return [
        (ix, known.value)
        for ix, one in enumerate(wanted)
        for known in one.identifiers
        if known.kind is search.kind
    ]


@dataclass(frozen=True, slots=True)
class Search:
    """A search for a set of persons, in one transaction with one snapshot.

    `cut` are the indexes of the wanted persons of whom there may be more rows than were read.
    """

    cursor: Cursor
    shape: Shape
    tokens: Tokens
    primary: bool
    max_records: int
    encoding: str
    cut: set[int] = field(default_factory=set)

    def find(self, wanted: Sequence[Wanted]) -> Finding:
        """Return what there is of each wanted person. Raises `AnswerUntrusted` if a canary is missed."""
        kinds = {search.kind for search in searchable(self.shape, primary=self.primary)}
        unaskable = frozenset(
            one.request for one in wanted if not any(known.kind in kinds for known in one.identifiers)
        )
        found: dict[str, dict[str, FoundRecord]] = {}
        too_many: set[str] = set()
        for match in self.matches(wanted):
            one, record = wanted[match.ix], match.record
            of_request = found.setdefault(one.request, {})
            known = record.key in of_request
            if not known and not one.every and len(of_request) == self.max_records:
                too_many.add(one.request)
            elif not known or record.by_key:
                of_request[record.key] = record
        return Finding(
            {request: tuple(records.values()) for request, records in found.items()},
            EMPTY if self._is_empty() else ROW_SECURITY_OFF,
            unaskable,
            frozenset(too_many | {wanted[ix].request for ix in self.cut}),
        )

    def matches(self, wanted: Sequence[Wanted], columns: Sequence[str] = ()) -> Iterator[Match]:
        """Yield the rows of every wanted person, by each identifier, with what `columns` hold.

        From its first row on the transaction is read-only. Raises `AnswerUntrusted` if a canary is missed.
        """
        searches = [
            (search, asked)
            for search in searchable(self.shape, primary=self.primary)
            if (asked := _asked(search, wanted))
        ]
        for search, _ in searches:
            self.cursor.execute(
                compose(
                    "CREATE TEMP TABLE {staged} (ask integer, form {type}) ON COMMIT DROP",
                    staged=search.staged,
                    type=search.column.staged,
                )
            )
        # Temporary tables can be filled, but not made, by a transaction that is read-only.
        self.cursor.execute("SET TRANSACTION READ ONLY")
        for search, asked in searches:
            every = [ask for ask, (ix, _) in enumerate(asked) if wanted[ix].every]
            yield from self._search(search, asked, columns, every)

    def _is_empty(self) -> bool:
        query = compose("SELECT EXISTS (SELECT FROM {table})", table=self.shape.subjects.sql)
        row = self.cursor.execute(query).fetchone()
        return row is not None and not row[0]

    def _canary(self, search: Searched) -> PersonalText | None:
        """Return what some living row is found by: if a search misses it, an absence proves nothing."""
        row = self.cursor.execute(
            compose(
                "SELECT u.{column}::text FROM {table} AS u WHERE u.{column} IS NOT NULL LIMIT 1",
                column=name(search.column.name),
                table=self.shape.subjects.sql,
            )
        ).fetchone()
        return None if row is None else masked_as_personal(row[0])

    def _search(
        self,
        search: Searched,
        asked: list[tuple[int, PersonalText]],
        columns: Sequence[str],
        every: Sequence[int],
    ) -> Iterator[Match]:
        canary = self._canary(search)
        if canary is not None:
            asked.append((_CANARY, canary))
        by_email = search.kind is IdentifierKind.EMAIL
        self._stage(search, asked)
        seen_canary = canary is None
        for ask, last, value, key, created, email, constant, *texts in self.cursor.execute(
            self._query(search, columns, every)
        ):
            ix, asked_for = asked[ask]
            if last:
                self.cut.update({ix} - {_CANARY})
                continue
            same = same_email(asked_for.reveal(), value) if by_email else asked_for.reveal() == value
            if not same:
                continue
            if ix == _CANARY:
                seen_canary = True
                continue
            if len(key) > LONGEST_KEPT_KEY:  # it would stand in the ledger for years
                raise AnswerUntrusted(
                    f"a key in {self.shape.mapping.table} has more than {LONGEST_KEPT_KEY} characters",
                    "map a shorter key",
                )
            further = texts[: len(columns)]
            yield Match(
                ix,
                FoundRecord(
                    self.shape.mapping.table,
                    key,
                    created,
                    masked_as_personal(email),
                    by_key=not by_email,
                    cleared=not constant and self._as_written(key, texts[len(columns) :]),
                ),
                tuple(masked_as_personal(text) for text in further),
            )
        if not seen_canary:
            raise AnswerUntrusted(
                f"a search by {search.kind} does not find a row that is there",
                f"look at the indexes of {self.shape.mapping.table}; REINDEX where a collation has changed",
            )

    def _stage(self, search: Searched, asked: Sequence[tuple[int, PersonalText]]) -> None:
        canonical = CANONICAL.get(search.column.base)

        def forms() -> Iterator[tuple[int, str]]:
            for ask, (_, value) in enumerate(asked):
                given = value.reveal()
                if search.kind is IdentifierKind.EMAIL:
                    candidates = spellings(given)
                else:
                    candidates = {given} if canonical and canonical(given) else set()
                for form in candidates:
                    if encodable(form, self.encoding):
                        yield ask, form

        copy_in(self.cursor, search.staged, ["ask", "form"], forms())
        # Not of the column `form`: statistics would keep samples of the addresses in the catalog.
        self.cursor.execute(compose("ANALYZE {staged} (ask)", staged=search.staged))

    def _match_odd(self, search: Searched) -> sql.Composed:
        """Return the match of what stands between blanks, or has letters beyond ASCII in either case.

        It is found by reading the table, or a partial index on such rows (docs/datastore.md).
        """
        text = compose("{column}::text", column=name("u", search.column.name))
        encoding = self.encoding.upper()
        # SQL_ASCII takes every byte of a blank for a blank of its own.
        blanks = "".join(one for one in BLANKS if one.isascii() or encoding == "UTF8")
        bare = compose("pg_catalog.btrim({text}, {blanks})", text=text, blanks=blanks)
        small = compose("pg_catalog.lower({bare})", bare=bare)
        if encoding == "UTF8" and self.cursor.connection.info.server_version >= 130000:
            # The locale may be one whose lower() knows no letters but ASCII's.
            known = self.cursor.execute(
                "SELECT collname FROM pg_catalog.pg_collation WHERE collname IN"
                " ('und-x-icu', 'pg_unicode_fast', 'pg_c_utf8') ORDER BY collname DESC LIMIT 1"
            ).fetchone()
            if known is not None:
                small = compose(
                    "pg_catalog.lower({bare} COLLATE {c})", bare=bare, c=name("pg_catalog", known[0])
                )
            # Servers do not agree on which sigma ends a word.
            small = compose("pg_catalog.replace(pg_catalog.normalize({small}, 'NFC'), 'ς', 'σ')", small=small)
        return compose(
            "{small} = w.form::text"
            " AND ({text} COLLATE pg_catalog.\"C\" ~ '[^!-~]'"
            # Under Turkish rules the small letter of an ASCII I is none of ASCII.
            " OR pg_catalog.lower('I' COLLATE {collation}) <> 'i')",
            small=small,
            text=text,
            collation=raw(search.column.collation or 'pg_catalog."default"'),
        )

    def _query(self, search: Searched, columns: Sequence[str], every: Sequence[int]) -> sql.Composed:
        column = name("u", search.column.name)
        matches = [compose("{column} = w.form", column=column)]
        if search.kind is IdentifierKind.EMAIL:
            # Several joins instead of one OR: so that an index on the column, or on lower(column), serves.
            matches.append(compose("pg_catalog.lower({column}::text) = w.form::text", column=column))
            matches.append(self._match_odd(search))
        mapping = self.shape.mapping
        constant = [rule for rule in mapping.clear if not rule.differs_per_record]
        differing = [rule for rule in mapping.clear if rule.differs_per_record]
        proposed = listed(
            (
                compose(
                    "SELECT w.ask, u.{key} AS key FROM {wanted} AS w JOIN {table} AS u ON {match}",
                    key=name(mapping.key),
                    wanted=search.staged,
                    table=self.shape.subjects.sql,
                    match=match,
                )
                for match in matches
            ),
            " UNION ",
        )
        return compose(
            "SELECT p.ask, p.n > {most} AND p.ask <> ALL ({every}), {column}::text, {seen},"
            " {constant}{further}{differing} FROM ("
            "SELECT ask, key, pg_catalog.row_number() OVER (PARTITION BY ask ORDER BY key) AS n"
            " FROM ({proposed}) AS q) AS p JOIN {table} AS u ON u.{key} = p.key"
            " WHERE p.n <= {most} + 1 OR p.ask = ANY ({every}) ORDER BY p.ask, p.n",
            column=column,
            seen=seen_columns(self.shape, "u"),
            constant=uncleared(self.shape, mapping.table, constant, "u") if constant else raw("false"),
            further=listed((compose(", {c}::text", c=name("u", called)) for called in columns), ""),
            differing=listed((compose(", {c}::text", c=name("u", rule.column)) for rule in differing), ""),
            proposed=proposed,
            table=self.shape.subjects.sql,
            key=name(mapping.key),
            most=_MOST_PROPOSED,
            every=sql.Literal(list(every)),
        )

    def _as_written(self, key: str, texts: Sequence[str | None]) -> bool:
        """Tell whether the columns that differ per record hold what an erasure writes for this key."""
        mapping = self.shape.mapping
        rules = [rule for rule in mapping.clear if rule.differs_per_record]
        token = self.tokens.of(mapping.table, key)
        return all(text == rule.value_for(key, token) for text, rule in zip(texts, rules, strict=True))


def records_with_address(cursor: Cursor, shape: Shape) -> Iterator[Sequence[FoundRecord]]:
    """Yield every record that has an e-mail address, in chunks."""
    email = shape.mapping.email_column
    if email is None:
        return
    query = compose(
        "SELECT {seen} FROM {table} AS u WHERE u.{email} IS NOT NULL",
        seen=seen_columns(shape, "u"),
        table=shape.subjects.sql,
        email=name(email),
    )
    for chunk in fetch_in_chunks(cursor, query, size=_READ_AT_ONCE, called="lethe_addresses"):
        yield [
            FoundRecord(shape.mapping.table, key, created, masked_as_personal(address))
            for key, created, address in chunk
        ]
