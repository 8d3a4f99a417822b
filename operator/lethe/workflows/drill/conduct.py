"""One drill: restore a snapshot where nobody reads, erase again, verify, drop it, and say what came of it.

Steps, with the numbers that recur in the code:

1. record that it begins, with the name of its database: so a later process finds what this one leaves;
2. see that the scratch server is none of production;
3. drop what an earlier one has left, and make the database;
4. restore, by the user's own command or Job;
5. see that something came back;
6. replay, and read back;
   and, in a drill that rewrites the snapshot, let a dump of it take its place (`rewrite.py`);
7. drop the database, and record what came of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from lethe.domain.drill_facts import DrillEnded, DrillResult, DrillStarted, RewriteResult
from lethe.domain.drills import DrillRecord
from lethe.ports.drills import RestoreFailed, RestoreOrder, Restorer, ScratchPlace, ScratchServer
from lethe.ports.ledger import Ledger
from lethe.ports.stores import DiskFull, MappingInvalid, StoreError
from lethe.workflows.drill.rehearsal import Rehearsed, rehearse
from lethe.workflows.drill.rewrite import RewriteFailed, Rewriting, rewrite
from lethe.workflows.pass_context import PassContext
from lethe.workflows.restore.replay import ReplayState
from lethe.workflows.store_session import StoreSession

LONGEST_MESSAGE = 500


@dataclass(frozen=True, slots=True)
class DrillPlan:
    """What a drill does. `drill`, `store` and `source` are `namespace/name`.

    `place` is where the snapshot lies, `called` what it is called there. `table` is that of the store's
    persons, `tables` are all that it maps. `servers` are those that stores have shown, by the store's name.
    `rewriting` is what a drill has besides that rewrites its snapshot, `rewritten` that one has before.
    """

    drill: str
    store: str
    source: str
    snapshot: str
    taken_at: datetime
    place: str
    called: str
    database: str
    table: str
    tables: Collection[str]
    servers: Mapping[str, str | None]
    same_server: bool = False
    token: str | None = None
    uid: str = ""
    rewriting: Rewriting | None = None
    rewritten: bool = False

    @property
    def mark(self) -> str:
        """Return what stands in the comment of each database of this drill."""
        return mark_of(self.drill, self.uid)

    def started(self, at: datetime) -> DrillStarted:
        """Return the fact that it begins."""
        taken = self.snapshot, self.taken_at
        return DrillStarted(self.drill, at, self.store, self.source, *taken, self.database, self.token)


def mark_of(drill: str, uid: str) -> str:
    """Return what stands in the comment of each database of a drill: other clusters have some so called."""
    return f"scratch of the Lethe drill {drill} ({uid})"


@dataclass(slots=True)
class Halt:
    """Ends a drill early: `because` is what comes of it, `None` while it goes on. `until` is monotonic, as is
    `replacing_since`: since when a snapshot is being replaced, before the holds were read (`None`: none is).
    """

    until: float
    because: DrillResult | None = None
    replacing_since: float | None = None
    _asked: threading.Event = field(default_factory=threading.Event)
    _closing: list[Callable[[], None]] = field(default_factory=list)

    def __call__(self) -> bool:
        """Tell whether the drill is to end; the end of its time is noticed here."""
        if self.because is None and time.monotonic() >= self.until:
            self.now(DrillResult.TIMED_OUT)
        return self._asked.is_set()

    def now(self, because: DrillResult) -> None:
        """Let it end now; whoever waits for the scratch server stops."""
        self.because = self.because or because
        self._asked.set()
        for close in tuple(self._closing):
            close()

    def closes(self, close: Callable[[], None]) -> None:
        """Let something be closed when the drill is to end."""
        self._closing.append(close)
        if self._asked.is_set():
            close()


class _Ends(Exception):
    """What came of a drill, before its last step."""

    def __init__(self, result: DrillResult, message: str) -> None:
        self.result, self.message = result, message
        super().__init__(message)


def conduct(
    plan: DrillPlan,
    context: PassContext,
    scratch: ScratchServer,
    restorer: Restorer,
    connect: Callable[[str], StoreSession],
    halt: Halt,
) -> DrillEnded:
    """Conduct a drill and return what came of it, as it was recorded. Raises the ledger's errors only.

    `connect` returns the store's session with the port to the database of a URL.
    """
    context.ledger.append([plan.started(context.clock())])  # 1
    measures: dict[str, Any] = {}
    earlier: list[str] = []
    elsewhere = False
    halt.closes(scratch.close)
    try:
        result, message = DrillResult.PASSED, ""
        if plan.rewriting is not None and (why := plan.rewriting.refusal(plan.store)):
            raise _Ends(DrillResult.REFUSED, why)
        _require_elsewhere(plan, context.ledger, scratch.place())  # 2
        elsewhere = True
        told = _carry_out(plan, context, scratch, restorer, connect, halt, measures, earlier)
        again = measures.get("erased_again", 0)
        message = f"{again} persons were erased in the copy again, and all erasures read back{told}"
    except _Ends as ends:
        result, message = ends.result, ends.message
    except RewriteFailed as failed:
        result, message = DrillResult.REWRITE_FAILED, f"{failed}; the snapshot is as it was"
        measures["rewrite"] = None if halt() else RewriteResult.FAILED
    except DiskFull:
        result, message = DrillResult.SCRATCH_FULL, "the disk of the scratch server is full; make room there"
    except MappingInvalid as invalid:
        result, message = DrillResult.MAPPING_DOES_NOT_FIT, str(invalid)
    except StoreError as away:
        result, message = DrillResult.SCRATCH_UNREACHABLE, _of_scratch(away)
    finally:
        scratch.close()
    if halt.because is not None:
        result, message = halt.because, _HALTED.get(halt.because, "")
    if elsewhere:
        left = clear_away(scratch.anew(), plan.mark, plan.database)[1]  # 7
        message, measures["left"] = message + left, bool(left)
    if earlier:
        message += f"; {', '.join(earlier)}, which an earlier drill had left, was dropped"
    ended = DrillEnded(plan.drill, context.clock(), result, message[:LONGEST_MESSAGE], **measures)
    context.ledger.append([ended])
    return ended


_HALTED = {
    DrillResult.TIMED_OUT: "it took longer than spec.timeLimit, and was ended",
    DrillResult.GAVE_WAY: "the store itself was restored meanwhile, which has precedence; it is begun again",
    DrillResult.INTERRUPTED: "the operator ended meanwhile",
}


def _of_scratch(away: StoreError) -> str:
    """Say of the scratch server what is said of stores, with its own fields."""
    return str(away).replace("spec.sql.", "spec.scratch.")


def _require_elsewhere(plan: DrillPlan, ledger: Ledger, found: ScratchPlace) -> None:
    """See that no store lies there: by what servers say of themselves, not by how a URL is written."""
    for store in sorted({*plan.servers, *ledger.erased_stores()}):
        identity = ledger.known_head(store).identity
        shown = identity.server if identity is not None else {}
        if not found.servers & {shown.get("system"), plan.servers.get(store)}:
            continue
        if shown.get("database") == found.database:
            raise _Ends(
                DrillResult.REFUSED,
                f"the Secret of spec.scratch.urlSecretRef leads to the database of DataStore {store}; "
                "name another server",
            )
        if not plan.same_server:
            raise _Ends(
                DrillResult.REFUSED,
                f"the scratch server is that of DataStore {store}, which would have the load of a restore; "
                "name another one, or set spec.scratch.sameServer: Allowed",
            )


def _carry_out(
    plan: DrillPlan,
    context: PassContext,
    scratch: ScratchServer,
    restorer: Restorer,
    connect: Callable[[str], StoreSession],
    halt: Halt,
    measures: dict[str, Any],
    earlier: list[str],
) -> str:
    earlier += [left for left in scratch.marked(plan.mark) if scratch.drop(left)]  # 3
    if halt():
        return ""
    scratch.create(plan.database, plan.mark)
    url, began = scratch.url_of(plan.database), time.monotonic()
    try:
        restorer(RestoreOrder(plan.called, plan.place, url), halt)  # 4
    except RestoreFailed as failed:
        result = DrillResult.REFUSED if failed.refused else DrillResult.RESTORE_FAILED
        raise _Ends(DrillResult.SCRATCH_FULL if failed.full else result, failed.problem) from None
    if halt():
        return ""
    measures["restore_seconds"] = time.monotonic() - began
    measures["size"] = scratch.size(plan.database)
    _require_something(plan, context.ledger, scratch)  # 5
    rewriting = plan.rewriting
    with ExitStack() as staged:
        place = rewriting.stage(staged) if rewriting is not None else None
        found = _rehearse(plan, context, connect, url, halt, staged, measures)  # 6
        if rewriting is None or halt():
            return ""
        if place is None:
            measures["rewrite"] = RewriteResult.NOBODY_ERASED
            return "; no snapshot holds anybody who was erased: none was rewritten"
        until = measures["replayed_from"]
        copy = rewriting.copy_of(plan.store, plan.database, plan.mark, place, until)
        told = rewrite(rewriting, copy, context, scratch, connect, halt, found)
        measures["rewrite"], message = told
        return f"; {message}"


def _rehearse(
    plan: DrillPlan,
    context: PassContext,
    connect: Callable[[str], StoreSession],
    url: str,
    halt: Halt,
    until: ExitStack,
    measures: dict[str, Any],
) -> Rehearsed:
    """Replay and read back in the copy, and require that all are cleared; it is open `until` then."""
    measures["replayed_from"] = context.clock()
    session = connect(url)
    halt.closes(session.port.close)
    until.callback(session.port.close)
    found = rehearse(session, context, halt, rewritten=plan.rewritten)
    measures |= {
        "replay_seconds": found.seconds,
        "verification_seconds": found.verification_seconds,
        "erased_again": found.erased_again,
        "left_alone": found.left_alone,
        "missed": found.missed,
    }
    _require_cleared(found)
    return found


def _require_something(plan: DrillPlan, ledger: Ledger, scratch: ScratchServer) -> None:
    missing = sorted(scratch.missing(plan.database, plan.tables))
    if missing:
        named = ", ".join(missing[:5])
        raise _Ends(
            DrillResult.NOTHING_RESTORED,
            f"the restore says that it went well, and the copy has no {named}; see what it restores",
        )
    had_rows = ledger.tombstone_count(plan.store) > 0 or any(ledger.known_head(plan.store).positions.values())
    if had_rows and scratch.is_empty(plan.database, plan.table):
        raise _Ends(
            DrillResult.NOTHING_RESTORED,
            f"the restore says that it went well, and {plan.table} is empty in the copy; see what the backup "
            "holds",
        )


def _require_cleared(found: Rehearsed) -> None:
    step = found.step
    if step.state is ReplayState.MAPPING_DOES_NOT_FIT:
        raise _Ends(DrillResult.MAPPING_DOES_NOT_FIT, step.message)
    if step.state is ReplayState.WAITING:
        raise _Ends(DrillResult.RESTORE_FAILED, f"the copy is not whole: {step.message}")
    if found.missed or step.state is not ReplayState.SAFE:
        counted = f"{found.missed} erased persons stand in the copy, and " if found.missed else ""
        why = f"{counted}a restore in earnest would wait for a person: {step.message}"
        raise _Ends(DrillResult.UNCLEARED, why)


def clear_away(scratch: ScratchServer, mark: str, database: str) -> tuple[list[str], str]:
    """Drop what a drill has left; return that, and what is to be told where that can't be done."""
    dropped: list[str] = []
    try:
        dropped += [left for left in sorted({*scratch.marked(mark), database}) if scratch.drop(left)]
    except StoreError as away:
        return dropped, f"; {database} could not be dropped ({_of_scratch(away)}): it is tried again"
    finally:
        scratch.close()
    return dropped, ""


def end_interrupted(
    record: DrillRecord, context: PassContext, scratch: ScratchServer | None, uid: str
) -> DrillEnded:
    """Record that a drill was cut off by the end of a process, and drop what it has left.

    `scratch` is `None` where its server can't be reached any more. Of one that had ended, and whose database
    could not be dropped then, that alone is recorded once it is gone.
    """
    begun, before = record.started, record.ended
    if scratch is not None:
        dropped, left = clear_away(scratch, mark_of(begun.drill, uid), begun.database)
    else:
        dropped, left = [], f"; nothing tells whether {begun.database} is there still"
    if before is not None and left:
        return before
    if before is not None:
        ended = replace(before, left=False)
    else:
        gone = f"; {', '.join(dropped)} was dropped" if dropped else f"; there is no {begun.database}"
        message = f"the operator ended during it, or failed over it{left or gone}"
        result, cut = DrillResult.INTERRUPTED, message[:LONGEST_MESSAGE]
        ended = DrillEnded(begun.drill, context.clock(), result, cut, left=bool(left))
    context.ledger.append([ended])
    return ended
