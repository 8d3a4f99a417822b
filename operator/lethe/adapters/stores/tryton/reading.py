"""Reads persons out of Tryton in sets, and believes no answer that could not be one to what was asked."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from lethe.adapters.stores.tryton.jsonrpc import CallRefused, JsonRpc, is_record_id
from lethe.adapters.stores.tryton.records import (
    ADDRESS,
    ADDRESS_FIELDS,
    ATTACHMENT,
    AVATAR,
    IDENTIFIER,
    MECHANISM,
    PARTY,
    Family,
    Mechanism,
    Party,
    is_erased_text,
)
from lethe.domain.identifiers import BLANKS, PersonalText, normalised_email, spellings
from lethe.ports.stores import AnswerUntrusted, StoreUnreachable

Row = Mapping[str, Any]

AT_ONCE = 50
"""Persons per question: the answer's size is bounded."""
_PATTERNS_AT_ONCE = 200
"""Patterns per question: SQLite bounds the depth of an expression."""

_FULFILLED = ["id", ">", 0]
_LOGGED_CLAUSES = 6
"""Tryton's log, at its level INFO, shows the first six items of a list. They are what every row fulfils, so
that no address gets there (at its level DEBUG it shows everything)."""

WITH_INACTIVE = {"active_test": False}
"""The context in which Tryton does not hide records that are inactive."""

RESOURCES = ("ir.note", ATTACHMENT, AVATAR, "ir.email", "ir.chat.channel")
"""What Tryton hangs on a record of any kind."""

_BLANKS = " \t\n\r\u00a0\u00ad\u200b\u200e\u200f\u202a\u202c\u3000\ufeff"
"""What has been seen around addresses; Tryton's patterns know no classes of characters."""
_ODD_AT_ONCE, _MOST_PAGES = 5_000, 200

_INSTANT_PARTS = ("year", "month", "day", "hour", "minute", "second", "microsecond")
_FILE_FIELDS = {ATTACHMENT: "file_id", AVATAR: "image_id"}
_NOT_ASKED_FOR = "the answer about {} holds a record that was not asked for"
_RIGHTS = "give the user of spec.tryton.credentialsSecretRef the group Party Administration"


class Reader:
    """Reads parties and what hangs on them. `unread` are models that exist but that the user may not read."""

    def __init__(self, rpc: JsonRpc) -> None:
        self._rpc = rpc
        self._fields: dict[str, frozenset[str]] = {}
        self._resources: tuple[str, ...] | None = None
        self.unread: frozenset[str] = frozenset()

    def rows(
        self, model: str, domain: list[Any], fields: Sequence[str], *, limit: int | None = None
    ) -> list[Row]:
        """Return rows of a model, inactive ones too, each with an id of its own.

        Raises `StoreUnreachable` where Tryton refuses, `AnswerUntrusted`.
        """
        try:
            answer = self._rpc.call(
                f"model.{model}.search_read",
                *(domain, 0, limit, [["id", "ASC"]], ["id", *fields], WITH_INACTIVE),
            )
        except CallRefused as refused:
            remedy = _RIGHTS if refused.code == "UserError" else ""
            raise StoreUnreachable(f"Tryton refuses to read {model} ({refused.code})", remedy) from None
        if not isinstance(answer, list) or not all(isinstance(row, dict) for row in answer):
            raise AnswerUntrusted(f"the answer about {model} is not a list of records")
        ids = [row.get("id") for row in answer]
        if not all(is_record_id(one) for one in ids) or len(set(ids)) != len(ids):
            raise AnswerUntrusted(f"the answer about {model} holds a record twice, or one without id")
        if any(name not in row for row in answer for name in fields):
            raise AnswerUntrusted(f"the answer about {model} leaves out fields that were asked for")
        return answer

    def fields_of(self, model: str) -> Mapping[str, str]:
        """Return the type of each field of a model."""
        try:
            answer = self._rpc.call(f"model.{model}.fields_get", None, 0, {})
        except CallRefused as refused:
            raise StoreUnreachable(f"Tryton refuses to describe {model} ({refused.code})", _RIGHTS) from None
        if not isinstance(answer, dict) or not all(isinstance(one, dict) for one in answer.values()):
            raise AnswerUntrusted(f"the description of {model} is not one")
        return {name: str(one.get("type")) for name, one in answer.items()}

    def mechanisms_with(self, addresses: Iterable[str]) -> list[Row]:
        """Return the mechanisms that hold one of the addresses, in either copy of the value.

        What Tryton proposes is compared here: its search may take letters for others (`unaccent`).
        Raises `AnswerUntrusted` for a row that no such search would find: whoever is shown other values than
        there are is not told who is there.
        """
        addresses = tuple(addresses)
        wanted = {normalised_email(address) for address in addresses}
        rows = self.proposed_for(addresses)
        found = _similar(addresses)
        for row in rows:
            if not any(found.fullmatch(text) for held in held_by(row) for text in (held, _unaccented(held))):
                raise AnswerUntrusted("the answer holds a contact mechanism that was not searched for")
        return [row for row in rows if held_by(row) & wanted]

    def proposed_for(self, addresses: Iterable[str]) -> list[Row]:
        """Return the mechanisms that Tryton proposes for the addresses, whatever their type says."""
        patterns = sorted({pattern for address in addresses for pattern in _patterns(address)})
        rows: list[Row] = []
        for some in _chunks(patterns, _PATTERNS_AT_ONCE):
            rows += self._mechanisms(_like(some))
        return rows

    def odd_mechanisms(self) -> Iterator[Row]:
        """Yield the mechanisms with an address that no pattern of its own finds.

        Those are with a blank, with the dot of the root, or quoted: an import may have brought them in.
        """
        last = 0
        odd = _like(['"%', "%.", *(f"%{blank}%" for blank in _BLANKS)])
        for _ in range(_MOST_PAGES):
            rows = self._mechanisms(_like(["%@%"]), odd, above=last)
            yield from rows
            if len(rows) < _ODD_AT_ONCE:
                return
            last = rows[-1]["id"]
        raise AnswerUntrusted(
            "addresses with blanks have no end", "remove the blanks from Tryton's addresses"
        )

    def _mechanisms(self, *clauses: list[Any], above: int | None = None) -> list[Row]:
        domain = [*([_FULFILLED] * _LOGGED_CLAUSES), ["party", "!=", None], *clauses]
        limit = None
        if above is not None:
            domain, limit = [*domain, ["id", ">", above]], _ODD_AT_ONCE
        rows = self.rows(MECHANISM, domain, ("party", "type", "value", "value_compact"), limit=limit)
        if not all(is_record_id(row["party"]) for row in rows):
            raise AnswerUntrusted("the answer holds a contact mechanism of nobody")
        if above is not None and any(row["id"] <= above for row in rows):
            raise AnswerUntrusted(_NOT_ASKED_FOR.format(MECHANISM))
        return rows

    def any_email(self) -> str | None:
        """Return one e-mail address that the database holds; `None` where it holds none at all."""
        rows = self.rows(MECHANISM, [["type", "=", "email"], ["value", "!=", None]], ("value",), limit=1)
        return _text(rows[0], "value") if rows else None

    def some_party_has_email(self) -> bool:
        """Tell whether any party has an e-mail address, which is another question than `any_email`."""
        return bool(self.rows(PARTY, [["contact_mechanisms.type", "=", "email"]], (), limit=1))

    def require_sight(self) -> None:
        """Require that the server finds at least the user that is logged in.

        Raises `AnswerUntrusted` for one that finds nobody at all.
        """
        user = self._rpc.user
        if [row["id"] for row in self.rows("res.user", [["id", "=", user]], ())] != [user]:
            raise AnswerUntrusted("the server does not even find the user that is logged in")

    def families(self, keys: Iterable[int], witness: int | None = None) -> dict[int, Family]:
        """Return the families of those of the parties that are there.

        Where one is missing, the same question must find the `witness` (`None`: any party), which is there.
        Raises `AnswerUntrusted`, `StoreUnreachable`.
        """
        asked = sorted(set(keys))
        found: dict[int, Family] = {}
        for start in range(0, len(asked), AT_ONCE):
            found |= self._families(asked[start : start + AT_ONCE], witness)
        return found

    def language_codes(self, parties: Iterable[int]) -> dict[int, str]:
        """Return the code (`de`, `es_419`) of each party's language, of those that have one.

        It is the language that Tryton shows to a user who is in no company.
        """
        asked = sorted(set(parties))
        codes: dict[int, str] = {}
        for start in range(0, len(asked), AT_ONCE):
            chunk = asked[start : start + AT_ONCE]
            rows = self.rows(PARTY, [["id", "in", chunk]], ("lang",))
            _require_asked(PARTY, rows, {"id": chunk})
            spoken = sorted({row["lang"] for row in rows if is_record_id(row["lang"])})
            named = self.rows("ir.lang", [["id", "in", spoken]], ("code",)) if spoken else []
            _require_asked("ir.lang", named, {"id": spoken})
            code_of = {row["id"]: _text(row, "code") for row in named}
            codes |= {row["id"]: code for row in rows if (code := code_of.get(row["lang"]))}
        return codes

    def _families(self, asked: list[int], witness: int | None) -> dict[int, Family]:
        rows = self._present(asked, witness)
        root_of = {key: key for key in rows}
        members: dict[int, list[int]] = {key: [key] for key in rows}
        every = dict(rows)
        frontier = dict(root_of)
        while frontier:
            merged = self._parties([["replaced_by", "in", sorted(frontier)]], {"replaced_by": frontier})
            following: dict[int, int] = {}
            for key, row in merged.items():
                root = frontier[row["replaced_by"]]
                if key not in members[root]:
                    members[root].append(key)
                    following[key] = root
                every[key] = row
            frontier = following
        hanging = self._hanging(sorted(every))
        return {
            root: _family([every[key] for key in keys], [hanging[key] for key in keys])
            for root, keys in members.items()
        }

    def _present(self, asked: list[int], witness: int | None) -> dict[int, Row]:
        rows = self._parties([["id", "in", asked]], {"id": asked})
        missing = [key for key in asked if key not in rows]
        if not missing:
            return rows
        if witness is None:
            anybody = self.rows(PARTY, [], (), limit=len(missing) + 1)
            witness = next((row["id"] for row in anybody if row["id"] not in missing), None)
        if witness is None or witness in missing:
            self.require_sight()
            if self.rows(MECHANISM, [], (), limit=1):
                raise AnswerUntrusted(
                    "the server shows contact mechanisms, but no party that could have them"
                )
            return rows
        again = self._parties([["id", "in", [*missing, witness]]], {"id": [*missing, witness]})
        if witness not in again:
            raise AnswerUntrusted("the server does not find a party that is there")
        del again[witness]
        return rows | again

    def _parties(self, domain: list[Any], allowed: Mapping[str, Iterable[int]]) -> dict[int, Row]:
        rows = self.rows(
            PARTY, domain, ("name", "active", "create_date", "write_date", "replaced_by", "langs")
        )
        _require_asked(PARTY, rows, allowed)
        return {row["id"]: row for row in rows}

    def _hanging(self, parties: list[int]) -> dict[int, dict[str, list[Row]]]:
        """Return what hangs on each party, by model."""
        hanging: dict[int, dict[str, list[Row]]] = {key: defaultdict(list) for key in parties}
        owner: dict[str, int] = {f"{PARTY},{key}": key for key in parties}
        held = {
            MECHANISM: ("type", "value", "value_compact", "name", "comment", "languages"),
            ADDRESS: self._address_fields(),
            IDENTIFIER: ("code", "code_compact"),
        }
        for model, names in held.items():
            rows = self.rows(model, [["party", "in", parties]], ("party", *names)) if parties else []
            _require_asked(model, rows, {"party": parties})
            for row in rows:
                hanging[row["party"]][model].append(row)
                owner[f"{model},{row['id']}"] = row["party"]
        for model in self._readable_resources():
            names = ("resource", *((_FILE_FIELDS[model],) if model in _FILE_FIELDS else ()))
            for references in _chunks(sorted(owner), 200):
                for row in self.rows(model, [["resource", "in", references]], names):
                    if row["resource"] not in owner:
                        raise AnswerUntrusted(_NOT_ASKED_FOR.format(model))
                    hanging[owner[row["resource"]]][model].append(row)
        return hanging

    def _address_fields(self) -> tuple[str, ...]:
        if ADDRESS not in self._fields:
            self._fields[ADDRESS] = frozenset(self.fields_of(ADDRESS))
        return tuple(name for name in ADDRESS_FIELDS if name in self._fields[ADDRESS])

    def _readable_resources(self) -> tuple[str, ...]:
        if self._resources is None:
            try:
                methods = set(self._rpc.call("system.listMethods"))
                there = [model for model in RESOURCES if f"model.{model}.search_read" in methods]
                access = self._rpc.call("model.ir.model.access.get_access", there, {})
                readable = tuple(model for model in there if access[model]["read"])
            except (CallRefused, KeyError, TypeError):
                raise StoreUnreachable("Tryton does not tell what the user may read", _RIGHTS) from None
            self._resources = readable
            self.unread = frozenset(there) - frozenset(readable)
        return self._resources


def held_by(row: Row) -> set[str]:
    """Return the addresses that a contact mechanism holds, normalised."""
    texts = (_text(row, "value"), _text(row, "value_compact"))
    return {normalised_email(text) for text in texts if text}


def _patterns(address: str) -> Iterator[str]:
    """Yield what to search for: the spellings of an address that `odd_mechanisms` does not find."""
    for text in spellings(address.strip(BLANKS)):
        if text.endswith(".") or text.startswith('"'):
            continue
        # Whatever ASCII is in, its case is none of a pattern's; that of other letters may be.
        literal = "".join(one.lower() if one.isascii() else one for one in text)
        literal = literal.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        yield literal
        yield "".join(one if one.isascii() else "_" for one in literal)


def _similar(addresses: Iterable[str]) -> re.Pattern[str]:
    """Return what matches whatever a search that passes over accents may take for one of the addresses."""
    texts = {spelling for address in addresses for spelling in spellings(address.strip(BLANKS))}
    texts |= {normalised_email(address) for address in addresses}
    signs = ("".join(re.escape(one) if one.isascii() else ".{1,3}" for one in text) for text in texts)
    return re.compile("|".join(signs), re.IGNORECASE)


def _unaccented(text: str) -> str:
    return "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one))


def _like(patterns: Iterable[str]) -> list[Any]:
    return ["OR", *([name, "ilike", one] for one in patterns for name in ("value", "value_compact"))]


def _require_asked(model: str, rows: Iterable[Row], allowed: Mapping[str, Iterable[int]]) -> None:
    for name, ids in allowed.items():
        permitted = set(ids)
        if any(row[name] not in permitted for row in rows):
            raise AnswerUntrusted(_NOT_ASKED_FOR.format(model))


def _family(parties: list[Row], hanging: list[dict[str, list[Row]]]) -> Family:
    mechanisms = [row for one in hanging for row in one[MECHANISM]]
    addresses = [row for one in hanging for row in one[ADDRESS]]
    identifiers = [row for one in hanging for row in one[IDENTIFIER]]
    resources = {model: tuple(row["id"] for one in hanging for row in one[model]) for model in RESOURCES}
    files = {
        model: tuple(row["id"] for one in hanging for row in one[model] if row[name])
        for model, name in _FILE_FIELDS.items()
    }
    return Family(
        tuple(_party(row) for row in parties),
        tuple(_mechanism(row) for row in mechanisms),
        tuple(row["id"] for row in addresses if any(row[name] for name in ADDRESS_FIELDS if name in row)),
        tuple(
            row["id"]
            for row in identifiers
            if not is_erased_text(_text(row, "code")) or not is_erased_text(_text(row, "code_compact"))
        ),
        {model: ids for model, ids in resources.items() if ids},
        {model: ids for model, ids in files.items() if ids},
    )


def _party(row: Row) -> Party:
    name = _text(row, "name")
    return Party(
        row["id"],
        bool(row["active"]),
        PersonalText(name) if name is not None else None,
        _instant(row, "create_date"),
        _instant(row, "write_date") or _instant(row, "create_date"),
        _ids(row, "langs"),
    )


def _mechanism(row: Row) -> Mechanism:
    value, compact = _text(row, "value"), _text(row, "value_compact")
    return Mechanism(
        row["id"],
        str(row["type"]),
        PersonalText(value) if value is not None else None,
        PersonalText(compact) if compact is not None else None,
        bool(row["name"] or row["comment"]),
        _ids(row, "languages"),
    )


def _text(row: Row, name: str) -> str | None:
    value = row[name]
    if value is not None and not isinstance(value, str):
        raise AnswerUntrusted(f"the field {name} of a record is no text")
    return value


def _ids(row: Row, name: str) -> tuple[int, ...]:
    value = row[name]
    if not isinstance(value, list) or not all(is_record_id(one) for one in value):
        raise AnswerUntrusted(f"the field {name} of a record is no list of ids")
    return tuple(value)


def _instant(row: Row, name: str) -> str | None:
    """Return Tryton's form of an instant (in UTC, which Tryton sets for its process) as canonical text."""
    value = row[name]
    if value is None:
        return None
    try:
        year, month, day, hour, minute, second, microsecond = (value[name] for name in _INSTANT_PARTS)
        instant = datetime(year, month, day, hour, minute, second, microsecond, UTC)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise AnswerUntrusted(f"the field {name} of a record is no instant") from None
    return instant.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _chunks(items: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
