"""Moving the head of a store's journal: noted before the store is asked, settled after."""

from __future__ import annotations

from collections.abc import Iterable
from secrets import token_bytes

from lethe.domain.journal import (
    GENESIS,
    Head,
    HeadFinding,
    HeadMove,
    KnownHead,
    StoreIdentity,
    compare,
    next_move,
    remembered_identity,
)
from lethe.ports.ledger import MoveIntended, MoveLost, MoveNote, MoveSettled
from lethe.ports.stores import Finding, HeadMoved
from lethe.workflows.pass_context import PassContext
from lethe.workflows.store_session import StoreSession


def intend_move(
    session: StoreSession,
    context: PassContext,
    *,
    reserve: int = 0,
    expected: Head | None = None,
    adopt: bool = False,
) -> HeadMove | None:
    """Step 1 of a head's move: note durably what the store is about to be asked. `None`: no journal there.

    `adopt` takes `expected` for where the store stands (a rewound head that a replay moves on from);
    otherwise it is where the ledger knows it.
    """
    if session.journal is None:
        if reserve:
            known = context.ledger.known_head(session.name)
            unused = HeadMove(None, known.head.move if known.head else 0, GENESIS, context.token)
            context.ledger.append(moves=[MoveIntended(session.name, unused, reserve), MoveLost(session.name)])
        context.ledger.confirm()  # no head there refuses who has been fenced
        return None
    known = context.ledger.known_head(session.name)
    before = expected if adopt else known.head
    move = next_move(
        before, after_move=last_move(session, context), token=context.token, nonce=token_bytes(16)
    )
    context.ledger.append(moves=[MoveIntended(session.name, move, reserve)])
    return move


def allot(session: StoreSession, context: PassContext, numbers: int) -> tuple[MoveNote, ...]:
    """Return what notes so many journal numbers, after the known head's last, as allotted."""
    # A move that is at once given up: allotting numbers and moving the head are two things.
    known = context.ledger.known_head(session.name)
    move = next_move(
        known.head, after_move=last_move(session, context), token=context.token, nonce=token_bytes(16)
    )
    return (MoveIntended(session.name, move, reserve=numbers), MoveLost(session.name))


def settle_move(session: StoreSession, context: PassContext, move: HeadMove) -> None:
    """Step 3 of a head's move, after the store has committed it."""
    context.ledger.append(moves=[MoveSettled(session.name, Head(move.move, move.digest))])


def last_move(session: StoreSession, context: PassContext) -> int:
    """Return the number of the highest move that the ledger knows, in doubt or not."""
    known = context.ledger.known_head(session.name)
    return max(known.head.move if known.head else 0, known.pending.move if known.pending else 0)


def tick(session: StoreSession, context: PassContext, *, expected: Head | None, seen: StoreIdentity) -> None:
    """Move the head from `expected` although nothing is erased, and remember the store as it was `seen`.

    Does nothing in a store without a journal. Raises `HeadMoved`, `StoreUnreachable`.
    """
    journal = session.journal
    move = intend_move(session, context, expected=expected, adopt=True)
    if move is None or journal is None:
        return
    head = journal.tick(move)
    # A table that is gone for a moment, between DROP and CREATE of a restore, is not forgotten.
    identity = remembered_identity(context.ledger.known_head(session.name).identity, seen)
    context.ledger.append(moves=[MoveSettled(session.name, head, identity)])


def advance_sequences(session: StoreSession, known: KnownHead) -> None:
    """Let no key be given out a second time that was given out when the head was last seen.

    Does nothing where Lethe does not reach the keys' generators (`Proof.keys_may_repeat`).
    """
    if session.journaled is not None:
        session.journaled.advance_sequences(known.positions)


def doubt_about_absences(
    session: StoreSession, context: PassContext, finding: Finding, wanted: Iterable[str]
) -> str:
    """See that the store is where the ledger knows it, so that not to be found in it means something.

    In the midst of a restore, and after one that nobody has looked at yet, a table is empty, or lacks who
    comes back later. Returns what makes absences doubtful, and no presence: who fills the store, since when.
    Raises `HeadMoved`.
    """
    if all(request in finding.records for request in wanted):
        return ""
    return doubt_in_sync(session, context)


def doubt_in_sync(session: StoreSession, context: PassContext) -> str:
    """See that the store is where the ledger knows it: what was read of it just now is not a restored one's.

    Returns, as `doubt_about_absences` does, who fills it. Does nothing in a store without a journal. Raises
    `HeadMoved`, `StoreUnreachable`.
    """
    if session.journal is None:
        return ""
    observed = session.port.observe()
    known = context.ledger.known_head(session.name)
    if compare(known, observed) not in (HeadFinding.IN_STEP, HeadFinding.NEVER_JOURNALED):
        raise HeadMoved("the store went back: what was read in it proves nothing")
    if observed.filling is None or observed.filling.elsewhere:
        return ""
    return session.describe_filling(observed.filling, context.clock())
