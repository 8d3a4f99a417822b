"""Moving the head of a store's journal: noted before the store is asked, settled after."""

from __future__ import annotations

from collections.abc import Iterable
from secrets import token_bytes

from lethe.domain.journal import (
    GENESIS,
    Head,
    HeadFinding,
    HeadMove,
    StoreIdentity,
    compare,
    next_move,
    remembered_identity,
)
from lethe.ports.ledger import Ledger, MoveIntended, MoveLost, MoveSettled
from lethe.ports.stores import Finding, HeadMoved, JournalSupport
from lethe.workflows.store_session import StoreSession


def intend_move(
    store: StoreSession,
    ledger: Ledger,
    *,
    token: int,
    reserve: int = 0,
    expected: Head | None = None,
    adopt: bool = False,
) -> HeadMove | None:
    """Step 1 of a head's move: note durably what the store is about to be asked. `None`: no journal there.

    `adopt` takes `expected` for where the store stands (a rewound head that a replay moves on from);
    otherwise it is where the ledger knows it.
    """
    if store.proof is None or store.proof.journal is not JournalSupport.KEPT:
        if reserve:
            known = ledger.known_head(store.name)
            unused = HeadMove(None, known.head.move if known.head else 0, GENESIS, token)
            ledger.append(moves=[MoveIntended(store.name, unused, reserve), MoveLost(store.name)])
        ledger.confirm()  # no head there refuses who has been fenced
        return None
    known = ledger.known_head(store.name)
    before = expected if adopt else known.head
    move = next_move(before, after_move=last_move(ledger, store), token=token, nonce=token_bytes(16))
    ledger.append(moves=[MoveIntended(store.name, move, reserve)])
    return move


def settle_move(store: StoreSession, ledger: Ledger, move: HeadMove) -> None:
    """Step 3 of a head's move, after the store has committed it."""
    ledger.append(moves=[MoveSettled(store.name, Head(move.move, move.digest))])


def last_move(ledger: Ledger, store: StoreSession) -> int:
    """Return the number of the highest move that the ledger knows, in doubt or not."""
    known = ledger.known_head(store.name)
    return max(known.head.move if known.head else 0, known.pending.move if known.pending else 0)


def tick(
    store: StoreSession, ledger: Ledger, *, expected: Head | None, seen: StoreIdentity, token: int
) -> None:
    """Move the head from `expected` although nothing is erased, and remember the store as it was `seen`.

    Does nothing in a store without a journal. Raises `HeadMoved`, `StoreUnreachable`.
    """
    move = intend_move(store, ledger, token=token, expected=expected, adopt=True)
    if move is None:
        return
    head = store.port.tick(move)
    # A table that is gone for a moment, between DROP and CREATE of a restore, is not forgotten.
    identity = remembered_identity(ledger.known_head(store.name).identity, seen)
    ledger.append(moves=[MoveSettled(store.name, head, identity)])


def require_absence_evidence(
    store: StoreSession, ledger: Ledger, finding: Finding, wanted: Iterable[str]
) -> None:
    """See that the store is where the ledger knows it, so that not to be found in it means something.

    In the midst of a restore, and after one that nobody has looked at yet, a table is empty, or lacks who
    comes back later. Raises `HeadMoved`.
    """
    if not all(request in finding.records for request in wanted):
        require_in_sync(store, ledger)


def require_in_sync(store: StoreSession, ledger: Ledger) -> None:
    """See that the store is where the ledger knows it: what was read of it just now is not a restored one's.

    Does nothing in a store without a journal. Raises `HeadMoved`, `StoreUnreachable`.
    """
    if store.proof is None or store.proof.journal is not JournalSupport.KEPT:
        return
    observed = store.port.observe_journal()
    known = ledger.known_head(store.name)
    in_step = compare(known, observed) in (HeadFinding.IN_STEP, HeadFinding.NEVER_JOURNALED)
    if observed.being_filled or not in_step:
        raise HeadMoved("the store is being filled, or went back: what was read in it proves nothing")
