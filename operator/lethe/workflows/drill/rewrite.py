"""Letting a dump of the cleaned copy take the place of the snapshot that a drill has restored.

Steps, with the numbers that recur in the code:

1. see that nobody is held;
2. put the copy's journal back to where the snapshot had it, so that who restores the new dump in earnest is
   found out exactly as with the old one: the moves of the rehearsal are none that the ledger knows;
3. dump, by the user's own command or Job, into a place beside the snapshots that is listed as unfinished;
4. restore the new dump, as the old one was: it must hold all that the copy held, and read back each erasure;
5. replace the snapshot (`workflows/backup/rewrite.py`).

Until the last step the snapshot is as it was, and what was written beside it is destroyed however it ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from lethe.domain.drill_facts import RewriteResult
from lethe.ports.backups import BackendError, Pin, Rewritable, RewriteRefused, rewritable
from lethe.ports.drills import RestoreFailed, RestoreOrder, Restorer, ScratchServer
from lethe.workflows.backup.rewrite import LeftAsItIs, replace_snapshot, require_no_hold
from lethe.workflows.backup.scan import KnownSource
from lethe.workflows.drill.rehearsal import RehearsalLedger, Rehearsed, rehearse
from lethe.workflows.pass_context import PassContext
from lethe.workflows.restore.replay import ReplayState
from lethe.workflows.store_session import StoreSession

TURN_SECONDS = 0.5


class RewriteFailed(Exception):
    """A snapshot was not rewritten, and somebody has to look; the message is fit to print."""


class Halting(Protocol):
    """What ends a drill early, and tells others that a snapshot is being replaced; see `conduct.Halt`."""

    replacing_since: float | None

    def __call__(self) -> bool:
        """Tell whether the drill is to end."""
        ...

    def closes(self, close: Callable[[], None]) -> None:
        """Let something be closed when the drill is to end."""
        ...


@dataclass(frozen=True, slots=True)
class Copy:
    """A snapshot and the databases that are made of it: `database`, and `second` of its new dump, for which
    `place` is. It was cleaned of whom the ledger knew at `cleaned_until`.
    """

    store: str
    pin: Pin
    database: str
    second: str
    mark: str
    place: str
    cleaned_until: datetime


@dataclass(frozen=True, slots=True)
class Rewriting:
    """What a drill that rewrites its snapshot has besides. `pin` is that, as it was before it was restored;
    `allowed` is what the source says.

    `dump` dumps, `restore` restores the new dump. `disagreement` compares the clocks, as `scan` does. Where
    `nobody_erased` is in any snapshot, nothing is rewritten.
    """

    source: KnownSource
    pin: Pin
    allowed: bool
    dump: Restorer
    restore: Restorer
    disagreement: Callable[[], str | None]
    nobody_erased: bool = False

    def refusal(self, store: str) -> str:
        """Say why no snapshot of the source may be rewritten; empty: they may."""
        name = self.source.description.short_name
        if not self.allowed:
            return f"BackupSource {name} does not allow it: its spec.rewrite is Forbidden"
        if rewritable(self.source.backend) is None:
            return f"spec.rewrite is for a BackupSource in a directory, and BackupSource {name} is none"
        if self.source.description.stores != (store,):
            return f"spec.rewrite is for a BackupSource of one store, and BackupSource {name} holds more"
        return ""

    def stage(self, until: ExitStack) -> str | None:
        """Make a place for the new dump, and destroy it `until` later; `None`: none is needed."""
        backend = rewritable(self.source.backend)
        if backend is None or self.nobody_erased:
            return None
        try:
            place = backend.stage()
        except BackendError as refused:
            raise RewriteFailed(f"no place for the new dump: {refused}") from None
        until.callback(_unstage, backend, place)
        return place

    def copy_of(self, store: str, database: str, mark: str, place: str, cleaned_until: datetime) -> Copy:
        """Return what is known of the snapshot that was restored into a database."""
        return Copy(store, self.pin, database, next_name(database), mark, place, cleaned_until)


def _unstage(backend: Rewritable, place: str) -> None:
    with suppress(BackendError):  # then it is listed as unfinished until somebody has looked
        backend.unstage(place)


def next_name(database: str) -> str:
    """Return the name of the scratch database that follows: what a killed drill has made is found by it."""
    head, _, digits = database.rpartition("_")
    return f"{head}_{(int(digits, 16) + 1) % 16 ** len(digits):0{len(digits)}x}"


def rewrite(
    rewriting: Rewriting,
    copy: Copy,
    context: PassContext,
    scratch: ScratchServer,
    connect: Callable[[str], StoreSession],
    halt: Halting,
    found: Rehearsed,
) -> tuple[RewriteResult, str]:
    """Rewrite the snapshot of which `found` is the cleaned copy; return what came of it.

    Raises `RewriteFailed`, and the errors of scratch server and ledger.
    """
    try:
        return _rewrite(rewriting, copy, context, scratch, connect, halt, found)
    except LeftAsItIs as left:
        return RewriteResult.HELD if left.held else RewriteResult.KEPT, left.message
    except RestoreFailed as failed:
        raise RewriteFailed(failed.problem) from None
    except RewriteRefused as refused:
        if refused.changed:
            return RewriteResult.KEPT, f"it was not rewritten: {refused.problem}"
        raise RewriteFailed(refused.problem) from None
    except BackendError as away:
        if rewriting.source.abandoned:
            return RewriteResult.KEPT, "the BackupSource was edited or connected anew meanwhile"
        raise RewriteFailed(str(away)) from None


def _rewrite(
    rewriting: Rewriting,
    copy: Copy,
    context: PassContext,
    scratch: ScratchServer,
    connect: Callable[[str], StoreSession],
    halt: Halting,
    found: Rehearsed,
) -> tuple[RewriteResult, str]:
    source, backend, ref = rewriting.source, rewritable(rewriting.source.backend), copy.pin.ref
    kept = RewriteResult.KEPT, ""
    journaled = found.session.journaled
    if backend is None or journaled is None:
        raise RewriteFailed("the copy has no journal, by which a restore of it would be found out")
    if found.ledger.left_to_requests:
        raise LeftAsItIs("somebody stands in it whom a request has not erased yet: it was left as it is")
    if found.session.proof is not None and found.session.proof.widened:
        raise LeftAsItIs(
            "the mapping was widened, and who was erased before is not cleared by it yet: see "
            "MappingComplete of the DataStore; the snapshot was left as it is"
        )
    require_no_hold(context.ledger, copy.store, context.clock())  # 1
    journaled.put_back_journal(found.journal)  # 2
    found.session.port.close()
    held = scratch.contents(copy.database)
    rewriting.dump(RestoreOrder(ref, copy.place, scratch.url_of(copy.database)), halt)  # 3
    if halt():
        return kept
    known = source.snapshots.get(ref)
    new = backend.dress(copy.place, copy.pin, known.former if known is not None else ())
    scratch.drop(copy.database)  # its room is needed
    scratch.create(copy.second, copy.mark)
    url = scratch.url_of(copy.second)
    rewriting.restore(RestoreOrder(ref, copy.place, url), halt)  # 4
    if halt():
        return kept
    _require_same(held, scratch.contents(copy.second))
    again = connect(url)
    halt.closes(again.port.close)
    try:
        read = rehearse(again, context, halt, as_of=found.ledger)
        if halt():
            return kept
        _require_clean(found, read)
        numbers, absent = _cleaned(read.session, context, found.ledger)
    finally:
        again.port.close()
    if (why := rewriting.disagreement()) is not None:
        raise LeftAsItIs(f"{why}: the snapshot was left as it is")
    while not source.turn.acquire(timeout=TURN_SECONDS):
        if halt():
            return kept
    halt.replacing_since = time.monotonic()
    try:
        if halt():
            return kept
        replace_snapshot(  # 5
            source,
            backend,
            context.ledger,
            copy.store,
            copy.place,
            copy.pin,
            new,
            now=context.clock,
            cleaned_until=copy.cleaned_until,
            numbers=numbers,
            absent=absent,
        )
    finally:
        halt.replacing_since = None
        source.turn.release()
    return RewriteResult.REWRITTEN, f"{ref} was rewritten without them"


def _require_same(held: Mapping[str, str], holds: Mapping[str, str]) -> None:
    """Require that a restored dump holds all that was dumped, and nothing else."""
    differ = sorted(one for one in {*held, *holds} if held.get(one) != holds.get(one))
    if differ:
        named = ", ".join(" ".join(one.split(" ")[:2])[:80] for one in differ[:3])  # names only
        raise RewriteFailed(
            f"restored, the new dump is not what was dumped: {len(differ)} things differ ({named}); see what "
            "spec.dump dumps"
        )


def _require_clean(found: Rehearsed, read: Rehearsed) -> None:
    """Require that nobody had to be erased again in the new dump, and that all was read back."""
    stands = read.erased_again + read.missed
    if read.step.state is not ReplayState.SAFE or stands or read.left_alone != found.left_alone:
        counted = f"{stands} erased persons stand in the new dump" if stands else read.step.message
        raise RewriteFailed(f"{counted}; see what spec.dump dumps")


def _cleaned(
    session: StoreSession, context: PassContext, ledger: RehearsalLedger
) -> tuple[list[int], dict[bytes, str]]:
    """Return the tombstones, and the addresses that had shown nobody, of whom nothing stands in the copy.

    Somebody may have an older row there, under a key by which nobody was erased, or have come again since.
    """
    erased, absent = set[bytes](), set[str]()
    if session.journaled is not None:
        for chunk in session.journaled.addresses():
            addresses = (one.email.reveal() for one in chunk if one.email is not None)
            digests = {session.fingerprints.email(address) for address in addresses}
            erased |= context.ledger.erased_before(digests)
            absent |= {ledger.absent[one] for one in digests if one in ledger.absent}
    looked_for = {digest: request for digest, request in ledger.absent.items() if request not in absent}
    if not erased and not absent:
        return list(ledger.numbers), looked_for
    every = [one for chunk in ledger.tombstones(session.name) for one in chunk]
    doubtful, known = (
        absent.union(one.request for one in every if one.email in erased),
        frozenset(ledger.numbers),
    )
    return [one.number for one in every if one.request not in doubtful and one.number in known], looked_for
