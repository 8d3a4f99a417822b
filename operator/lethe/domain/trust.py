"""What a store's answer is worth: pure decisions over what was gathered."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from textwrap import shorten

from lethe.domain.facts import Outcome
from lethe.domain.requests import UNCONFIRMED, RequestRecord, StoreState
from lethe.domain.restores import RestoreEpisode

EARLIER_ERASURE = "earlier-erasure"
"""The proof of a `NotFound` where an earlier request had erased this person here."""

NOTHING_TO_ASK_BY = "nothing-to-ask-by"
"""The "proof" of a `NotFound` where no identifier is known by which this store could be searched: there is
none, so a person decides."""


_LONGEST_LIST = 240


class BlockReason(StrEnum):
    """What keeps a request from being erased in a store (reasons of `Ready`; docs/troubleshooting.md)."""

    ERASING = "Erasing"
    STORE_UNREACHABLE = "StoreUnreachable"
    NOTHING_FOUND = "NothingFound"
    NOTHING_TO_ASK_BY = "NothingToAskBy"
    FIND_UNTRUSTED = "FindUntrusted"
    SHARED_RECORD = "SharedRecord"
    VALUE_REFUSED = "ValueRefused"
    KEY_ABOVE_RESTORE = "KeyAboveRestore"
    HELD = "Held"
    PENDING = "Pending"
    """As if nothing blocked it: what does may not be said."""
    SECRET_MISSING = "SecretMissing"  # noqa: S105 - a reason
    NAME_REUSED = "NameReused"
    INTERNAL_ERROR = "InternalError"
    """Lethe itself failed over this request, and over no other."""


@dataclass(frozen=True, slots=True)
class Blocker:
    """An blocker with what a person needs to know about it; nothing personal."""

    reason: BlockReason
    message: str


@dataclass(frozen=True, slots=True)
class RecordTrait:
    """What matters of a found record for deciding whether to trust it.

    `by_key` says that a key found it, and not an address alone; `shared` that it carries other people's too.
    """

    table: str
    key: str
    by_key: bool
    shared: bool


def blocker_of_found(
    records: Sequence[RecordTrait],
    *,
    too_many: bool,
    max_records: int,
    one_owner: bool,
    confirmed: Collection[str],
    store: str,
) -> Blocker | None:
    """Decide whether the records found for one person may be erased; `None` means yes.

    `too_many` says that these are not all; `one_owner` that whoever has an address has it alone. Several
    records of one address may be a family's, or everybody's who was entered without one (`noreply@…`).
    """
    if too_many:
        return Blocker(
            BlockReason.FIND_UNTRUSTED,
            f"{store} returned more than {max_records} records for one person; nothing was erased there. "
            "Look at them, then raise maxRecords or add TooManyRecords to spec.confirmed",
        )
    shared = [record for record in records if record.shared]
    if shared and "SharedRecord" not in confirmed:
        return Blocker(
            BlockReason.SHARED_RECORD,
            f"{store}: {_named(shared)} carries other addresses too; if it is this person's alone, "
            "add SharedRecord to spec.confirmed",
        )
    by_address = len(records) > 1 and not all(record.by_key for record in records)
    if by_address and not one_owner and not {"SharedRecord", "TooManyRecords"} & set(confirmed):
        return Blocker(
            BlockReason.SHARED_RECORD,
            f"{store}: {len(records)} records hold the same address: {_named(records)}. If all are this "
            "person's, add SharedRecord to spec.confirmed; where no address has two owners, set "
            "oneOwnerPerAddress in the DataStore",
        )
    return None


def _named(records: Sequence[RecordTrait]) -> str:
    """Return the keys of records of one table, as many as a status has room for."""
    keys = ", ".join(record.key for record in records)
    return shorten(f"{records[0].table} {keys}", _LONGEST_LIST, placeholder=" …")


def key_in_doubt(
    key: str, asked_at: datetime, episodes: Sequence[RestoreEpisode], *, table: str
) -> tuple[bool, int | None]:
    """Tell whether a key noted at `asked_at` may mean somebody else by now, and above which position.

    Until a restore has been dealt with, the store may go back once more and nobody sees it: a key noted
    before is only sure where no restore, of whenever, went back to before it was given out. A later restore
    may bring back the time of either owner. One that does not tell to where the keys went back (`None`)
    leaves every key in doubt. A superseded restore ends with the one that followed it.
    """
    ends = [episode.safe_at for episode in episodes if episode.superseded_by is None]
    if not key.isdecimal() or all(end is not None and end <= asked_at for end in ends):
        return False, None
    for episode in episodes:
        position = episode.position_of(table) if episode.whole else None
        if position is None or int(key) > position:
            return True, position
    return False, None


def blocker_of_key(
    key: str | None,
    asked_at: datetime,
    episodes: Sequence[RestoreEpisode],
    *,
    table: str,
    confirmed: Collection[str],
) -> Blocker | None:
    """Decide whether a request by id still means who it meant: a restore may have given the key out again."""
    if key is None or "KeyAboveRestore" in confirmed:
        return None
    doubtful, position = key_in_doubt(key, asked_at, episodes, table=table)
    if not doubtful:
        return None
    where = (
        "to where its highest key is not known"
        if position is None
        else f"to where its highest key was {position}"
    )
    return Blocker(
        BlockReason.KEY_ABOVE_RESTORE,
        f"the Primary was restored {where}, and that had not been dealt with when this request was made; "
        f"key {key} may mean somebody else by now. If it does not, add KeyAboveRestore to spec.confirmed",
    )


@dataclass(frozen=True, slots=True)
class Ending:
    """Whether a request has ended: `outcome` if it has, else whom or what it waits for."""

    outcome: Outcome | None
    waits_for: tuple[str, ...] = ()
    blocker: Blocker | None = None


def ending_of(record: RequestRecord, stores: Collection[str], *, has_primary: bool) -> Ending:
    """Decide whether a request is done: every store has confirmed, and somebody was found somewhere.

    `stores` are the DataStores that exist now; those that existed when the request was accepted count
    too, so that deleting a DataStore does not turn a request into a success.
    """
    names = sorted({*record.stores, *stores})
    waits_for = tuple(name for name in names if not record.progress(name).state.settled)
    if waits_for:
        return Ending(None, waits_for)
    if not has_primary:
        return Ending(
            None,
            blocker=Blocker(
                BlockReason.STORE_UNREACHABLE,
                "this namespace has no DataStore with role Primary; apply one",
            ),
        )
    if record.accepted.dry_run:
        return Ending(Outcome.PLANNED)
    blocker = _question_of_ending(names, record)
    return Ending(Outcome.ERASED if blocker is None else None, blocker=blocker)


def _question_of_ending(names: Sequence[str], record: RequestRecord) -> Blocker | None:
    """Return what a person must say before a request counts as carried out; `None`: nothing."""
    progress = [record.progress(name) for name in names]
    if not any(one.state is StoreState.VERIFIED or one.proof == EARLIER_ERASURE for one in progress):
        if "NothingFound" in record.confirmed:
            return None
        begun = [name.rpartition("/")[2] for name in names if record.progress(name).proof == UNCONFIRMED]
        if begun:
            return Blocker(
                BlockReason.NOTHING_FOUND,
                f"only {', '.join(begun)} knew this person, and is a third party's since; nobody has seen "
                "whether the erasure that had begun there was carried out. If the request is to end so, add "
                "NothingFound to spec.confirmed",
            )
        return Blocker(
            BlockReason.NOTHING_FOUND,
            "no store knows this person; check for a typing error. If the person is really in none of them, "
            "add NothingFound to spec.confirmed",
        )
    not_asked = [name for name in names if record.progress(name).proof == NOTHING_TO_ASK_BY]
    if not not_asked or "NothingToAskBy" in record.confirmed:
        return None
    short = ", ".join(name.rpartition("/")[2] for name in not_asked)
    return Blocker(
        BlockReason.NOTHING_TO_ASK_BY,
        f"{short} could not be searched: the Primary holds no key or address that is this person's alone. "
        "Look for the person there; who is found is erased by a request of its own. Then add NothingToAskBy "
        "to spec.confirmed",
    )
