"""What a store's answer is worth: pure decisions over what was gathered."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from lethe.domain.facts import Outcome
from lethe.domain.requests import RequestRecord, StoreState
from lethe.domain.restores import RestoreEpisode

EARLIER_ERASURE = "earlier-erasure"
"""The proof of a `NotFound` where an earlier request had erased this person here."""

NOTHING_TO_ASK_BY = "nothing-to-ask-by"
"""The proof of a `NotFound` where no identifier is known by which this store could be searched."""


class BlockReason(StrEnum):
    """What keeps a request from being erased in a store (reasons of `Ready`; docs/troubleshooting.md)."""

    ERASING = "Erasing"
    STORE_UNREACHABLE = "StoreUnreachable"
    NOTHING_FOUND = "NothingFound"
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
    """What matters of a found record for deciding whether to trust it."""

    table: str
    key: str
    shared: bool


def blocker_of_found(
    records: Sequence[RecordTrait], *, max_records: int, confirmed: Collection[str], store: str
) -> Blocker | None:
    """Decide whether the records found for one person may be erased; `None` means yes."""
    if len(records) > max_records and "TooManyRecords" not in confirmed:
        return Blocker(
            BlockReason.FIND_UNTRUSTED,
            f"{store} returned more than {max_records} records for one person; nothing was erased there. "
            "Look at them, then raise maxRecords or add TooManyRecords to spec.confirmed",
        )
    shared = [record for record in records if record.shared]
    if shared and "SharedRecord" not in confirmed:
        keys = ", ".join(f"{record.table} {record.key}" for record in shared[:5])
        return Blocker(
            BlockReason.SHARED_RECORD,
            f"{store}: {keys} carries other addresses too; if it is this person's alone, "
            "add SharedRecord to spec.confirmed",
        )
    return None


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
        "and its highest key then is not known"
        if position is None
        else f"to where its highest key was {position}"
    )
    return Blocker(
        BlockReason.KEY_ABOVE_RESTORE,
        f"the Primary was restored after this request was made, {where}; "
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
    progress = [record.progress(name) for name in names]
    if record.accepted.dry_run:
        return Ending(Outcome.PLANNED)
    found = any(p.state is StoreState.VERIFIED or p.proof == EARLIER_ERASURE for p in progress)
    if found or "NothingFound" in record.confirmed:
        return Ending(Outcome.ERASED)
    return Ending(
        None,
        blocker=Blocker(
            BlockReason.NOTHING_FOUND,
            "no store knows this person; check for a typing error. If the person is really in none of them, "
            "add NothingFound to spec.confirmed",
        ),
    )
