"""The store adapter for Tryton: a person is a party (`party.party`), found by e-mail address.

It keeps no journal: Tryton has no place for one that a restore would rewind with the data and that
nobody but Lethe writes. A restore is found by the probe of each look, and told from a write-back by the
date of a party's last change.

What RPC does not reach, and so stays: the history tables of modules that keep one; files of deleted
attachments until Tryton's own retention ends (`attachment.retention_days`); texts that quote a person in
records which are not the party's (`ir.error`, a sale's description, a mail hung on an invoice); the user
(`res.user`) of an employee; the party's `code`; free pages and logs of the database below.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from lethe.adapters.hosts import ANYWHERE, Resolver
from lethe.adapters.stores.tryton.contacting import contacts_of
from lethe.adapters.stores.tryton.erasing import erase_family, try_wizard
from lethe.adapters.stores.tryton.finding import canary_party, find
from lethe.adapters.stores.tryton.jsonrpc import CallRefused, JsonRpc
from lethe.adapters.stores.tryton.reading import AT_ONCE, RESOURCES, Reader
from lethe.adapters.stores.tryton.records import ADDRESS, ADDRESS_FIELDS, IDENTIFIER, MECHANISM, PARTY, Family
from lethe.domain.journal import HeadMove, JournalObservation, StoreIdentity
from lethe.domain.mapping import ClearRule, ClearTo, PiiKind, ProvedMapping, SubjectMapping
from lethe.domain.tombstones import Identity, IdentityMatcher, SeenRecord, Tombstone
from lethe.ports.keys import Keyring
from lethe.ports.stores import (
    AnswerUntrusted,
    Contact,
    ErasureOutcome,
    Finding,
    JournalEntry,
    JournalNotPermitted,
    JournalSupport,
    MappingInvalid,
    MappingProblem,
    Proof,
    Refusal,
    Residue,
    StoreUnreachable,
    Wanted,
)

_HIGHEST_KEY = 2**31 - 1

MAPPING = ProvedMapping(
    "tryton-1",
    SubjectMapping(
        PARTY,
        "id",
        {"email": f"{MECHANISM}.value"},
        (
            ClearRule("name", PiiKind.FIRST_NAME, ClearTo.SET_NULL),
            ClearRule("name", PiiKind.LAST_NAME, ClearTo.SET_NULL),
            ClearRule(f"{MECHANISM}.value", PiiKind.EMAIL, ClearTo.VALUE, "erased"),
            ClearRule("lang", PiiKind.LOCALE, ClearTo.SET_NULL),
        ),
        "create_date",
    ),
)
"""What an erasure clears, in the words of a mapping. It is Tryton's schema and this code that say it, so
there is one version; a change of what is cleared is a new one."""

_KNOWN_TEXTS = {
    PARTY: "name code code_alnum email fax mobile phone website full_name rec_name xml_id",
    ADDRESS: " ".join((*ADDRESS_FIELDS, "full_address street street_single_line rec_name xml_id")),
    MECHANISM: "value value_compact name comment email other_value sip skype website url rec_name xml_id",
    IDENTIFIER: "code code_compact rec_name xml_id",
}
_MAY_BE_PERSONAL = frozenset({"char", "text", "fullhtml", "binary", "date", "dict"})
_RIGHTS = (
    "give the user of spec.tryton.credentialsSecretRef the group Party Administration, "
    "and Administration where e-mails and chats are kept"
)


class TrytonStore:
    """Tryton as a store of persons; `lethe.ports.stores.Store` and no `Journaled`.

    `canary` is an e-mail address that must be found in the same pass, or no absence counts.
    Raises `ValueError` for a `url` that is not one.
    """

    def __init__(
        self,
        url: str,
        database: str,
        username: str,
        password: str,
        *,
        store: str,
        keyring: Keyring,  # noqa: ARG002 - as every store; but nothing written here needs a token
        canary: str | None = None,
        max_records: int = 5,
        resolver: Resolver = ANYWHERE,
        allow_plaintext: bool = False,
    ) -> None:
        self._store = store
        self._rpc = JsonRpc(url, database, username, password, resolver, allow_plaintext=allow_plaintext)
        self._reader = Reader(self._rpc)
        self._canary = canary
        self._max_records = max_records

    def prove(self, recorded: Iterable[ProvedMapping] = ()) -> Proof:  # noqa: ARG002 - there is one version
        """Log in, and look whether the module party is there and the user may erase. Changes nothing.

        Raises `MappingInvalid`, `StoreUnreachable`, `AnswerUntrusted`.
        """
        try:
            methods = self._rpc.call("system.listMethods")
            if not isinstance(methods, list) or not all(isinstance(one, str) for one in methods):
                raise AnswerUntrusted("the list of Tryton's methods is not one")
            needed = {f"model.{model}.search_read" for model in (PARTY, MECHANISM, ADDRESS, IDENTIFIER)}
            if not {*needed, "wizard.party.erase.execute"} <= set(methods):
                problem = f"the Tryton database of DataStore {self._store} does not have the module party"
                remedy = "name a database in which it is activated"
                raise MappingInvalid([MappingProblem("tryton.database", problem, remedy)])
            try_wizard(self._rpc)
            mail_and_chat = self._require_rights(set(methods))
        except CallRefused as refused:
            raise StoreUnreachable(f"Tryton refuses {refused.method} ({refused.code})", _RIGHTS) from None
        if self._canary is not None:
            canary_party(self._reader, self._canary)
        return Proof(
            MAPPING,
            JournalSupport.NOT_SUPPORTED,
            lookalikes=tuple(sorted({*self._unknown_texts(), *mail_and_chat})),
            keys_may_repeat=(f"{PARTY}.id",),
        )

    def find(self, wanted: Sequence[Wanted]) -> Finding:
        """Find every party that carries a wanted person's e-mail address, inactive and merged ones too.

        Raises `StoreUnreachable`, `AnswerUntrusted`.
        """
        return find(self._reader, wanted, canary=self._canary, max_records=self._max_records)

    def contacts(self, wanted: Sequence[Wanted]) -> Mapping[str, tuple[Contact, ...]]:
        """Return how each wanted person is reached; Tryton keeps no time zone of a party.

        There is no transaction over several calls. Raises `StoreUnreachable`, `AnswerUntrusted`.
        """
        return contacts_of(self._reader, wanted, canary=self._canary, max_records=self._max_records)

    def plan(self, tombstones: Sequence[Tombstone]) -> Mapping[int, Mapping[str, int]]:
        """Return the rows by model that erasing each tombstone would change. Changes nothing."""
        families = self._families(tombstones)
        return {one.number: families[one.key].uncleared if one.key in families else {} for one in tombstones}

    def erase(
        self,
        tombstones: Sequence[Tombstone],
        matcher: IdentityMatcher,
        *,
        move: HeadMove | None,
        first_number: int | None = None,
        exclusive: bool = False,  # noqa: ARG002 - Tryton has no lock to offer over RPC
    ) -> ErasureOutcome:
        """Erase a set, each party in transactions of its own (Tryton has none over several calls).

        Every uncleared party is judged by what is read right before. Raises `StoreUnreachable`,
        `AnswerUntrusted`; either may leave a part done, which the next call completes.
        """
        if move is not None:
            raise JournalNotPermitted(f"DataStore {self._store} is a Tryton, which keeps no journal")
        done: list[tuple[Tombstone, Mapping[str, int]]] = []
        verdicts: dict[Identity, set[int]] = {Identity.OTHER: set(), Identity.UNCLEAR: set()}
        absent: set[int] = set()
        refused: dict[int, Refusal] = {}
        for start in range(0, len(tombstones), AT_ONCE):
            chunk = tombstones[start : start + AT_ONCE]
            families = self._families(chunk)
            identities = _judged(chunk, families, matcher)
            erased_with_another: set[int] = set()
            for tombstone in chunk:
                family = families.get(tombstone.key)
                if family is None:
                    absent.add(tombstone.number)
                    done.append((tombstone, {}))
                elif tombstone.number not in identities or family.root.id in erased_with_another:
                    done.append((tombstone, {}))
                elif identities[tombstone.number] is not Identity.SAME:
                    verdicts[identities[tombstone.number]].add(tombstone.number)
                else:
                    try:
                        erase_family(self._rpc, family)
                    except CallRefused as refusal:
                        retry = refusal.code == "ConcurrencyException"
                        refused[tombstone.number] = Refusal(refusal.code, refusal.method, retry)
                    else:
                        erased_with_another |= {party.id for party in family.parties}
                        done.append((tombstone, family.uncleared))
        return ErasureOutcome(
            _entries(done, first_number),
            frozenset(verdicts[Identity.OTHER]),
            frozenset(verdicts[Identity.UNCLEAR]),
            frozenset(absent),
            refused,
        )

    def check(
        self,
        chunks: Iterable[Sequence[Tombstone]],
        matcher: IdentityMatcher,
        *,
        exclusive: bool = False,  # noqa: ARG002 - Tryton has no lock to offer over RPC
    ) -> Residue:
        """Read back whether what was erased is still cleared.

        Raises `StoreUnreachable`, `AnswerUntrusted`.
        """
        uncleared: list[int] = []
        left_alone = 0
        unclear: list[tuple[str, str]] = []
        absent: list[int] = []
        changed_at: dict[int, datetime] = {}
        for chunk in chunks:
            families = self._families(chunk)
            identities = _judged(chunk, families, matcher)
            for tombstone in chunk:
                identity = identities.get(tombstone.number)
                if tombstone.key not in families:
                    absent.append(tombstone.number)
                elif identity is Identity.SAME:
                    uncleared.append(tombstone.number)
                    if changed := families[tombstone.key].root.changed_at:
                        changed_at[tombstone.number] = datetime.fromisoformat(changed)
                elif identity is Identity.OTHER:
                    left_alone += 1
                elif identity is Identity.UNCLEAR:
                    unclear.append((PARTY, tombstone.key))
        return Residue(tuple(uncleared), left_alone, tuple(unclear), tuple(absent), changed_at=changed_at)

    def observe(self, *, settle: bool = False) -> JournalObservation:  # noqa: ARG002 - nothing is ever in doubt longer than a call
        """Look whether Tryton answers the user. Raises `StoreUnreachable`, `AnswerUntrusted`."""
        self._reader.require_sight()
        return JournalObservation(None, StoreIdentity())

    def close(self) -> None:
        """End the session and the connection."""
        self._rpc.close()

    def _families(self, tombstones: Sequence[Tombstone]) -> dict[str, Family]:
        """Return the families of those of the tombstones whose party is there, by the tombstone's key."""
        keys = {one.key: int(one.key) for one in tombstones if one.table == PARTY and _is_key(one.key)}
        witness = canary_party(self._reader, self._canary) if self._canary is not None and keys else None
        families = self._reader.families(keys.values(), witness)
        return {text: families[key] for text, key in keys.items() if key in families}

    def _require_rights(self, methods: set[str]) -> list[str]:
        """Require what every erasure needs; return what the user may not clear although it is there."""
        there = [model for model in RESOURCES if f"model.{model}.search_read" in methods]
        asked = [PARTY, MECHANISM, IDENTIFIER, *there]
        access = self._rpc.call("model.ir.model.access.get_access", asked, {})
        try:
            for model in (PARTY, MECHANISM, IDENTIFIER):
                if not (access[model]["read"] and access[model]["write"]):
                    raise StoreUnreachable(f"Tryton does not let the user read and write {model}", _RIGHTS)
            return [f"{one}.resource" for one in there if not (access[one]["read"] and access[one]["delete"])]
        except (KeyError, TypeError):
            raise AnswerUntrusted("the list of the user's rights is not one") from None

    def _unknown_texts(self) -> Iterator[str]:
        """Yield the fields that other modules added to a person's records and that may hold a person."""
        for model, known in _KNOWN_TEXTS.items():
            for name, kind in self._reader.fields_of(model).items():
                if kind in _MAY_BE_PERSONAL and name not in known.split():
                    yield f"{model}.{name}"


def _is_key(text: str) -> bool:
    return text.isascii() and text.isdecimal() and str(int(text)) == text and int(text) <= _HIGHEST_KEY


def _judged(
    tombstones: Sequence[Tombstone], families: Mapping[str, Family], matcher: IdentityMatcher
) -> dict[int, Identity]:
    """Return whose each party is that stands uncleared, by the tombstone's number.

    A party may carry several addresses: it is the erased person's if any of them says so.
    """
    pairs = [
        (tombstone, SeenRecord(tombstone.key, family.root.created_at, email))
        for tombstone in tombstones
        if (family := families.get(tombstone.key)) is not None and family.uncleared
        for email in (family.emails or (None,))
    ]
    matched: dict[int, set[Identity]] = {}
    for (tombstone, _), identity in zip(pairs, matcher(pairs) if pairs else (), strict=True):
        matched.setdefault(tombstone.number, set()).add(identity)
    return {
        number: next(one for one in (Identity.SAME, Identity.OTHER, Identity.UNCLEAR) if one in identities)
        for number, identities in matched.items()
    }


def _entries(
    done: Sequence[tuple[Tombstone, Mapping[str, int]]], first_number: int | None
) -> tuple[JournalEntry, ...]:
    """Return the entries: of a first erasure all, of a re-erasure only what was changed, renumbered."""
    if first_number is None:
        return tuple(JournalEntry(one.number, one.number, counts) for one, counts in done)
    changed = [(one, counts) for one, counts in done if counts]
    return tuple(
        JournalEntry(first_number + index, one.number, counts) for index, (one, counts) in enumerate(changed)
    )
