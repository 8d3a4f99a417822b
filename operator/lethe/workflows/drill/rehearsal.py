"""A replay in a restored copy: the same code as after a restore, and nothing of it reaches the ledger."""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar, cast

from lethe.domain.facts import DetectedBy, Fact, FoundAgain, RestoreFact
from lethe.domain.journal import WENT_BACK, compare
from lethe.domain.legal import Holds
from lethe.domain.restores import RestoreEpisode, evolve_episode
from lethe.domain.tombstones import IdentityMatcher, Tombstone
from lethe.ports.keys import record_digest
from lethe.ports.ledger import Ledger, MoveNote, moved
from lethe.ports.stores import Residue, Store
from lethe.workflows.pass_context import PassContext
from lethe.workflows.restore.episode import detected_by, open_episode, open_episode_of
from lethe.workflows.restore.replay import ReplayState, ReplayStep, replay
from lethe.workflows.store_session import StoreSession

MOST_LOOKS = 8
"""How many looks a copy gets to be at rest, whole and cleared: nobody else writes there."""
LOOK_SECONDS = 0.05

_T = TypeVar("_T")

_ENDS = frozenset(
    {
        ReplayState.SAFE,
        ReplayState.IDENTITY_UNCLEAR,
        ReplayState.MAPPING_DOES_NOT_FIT,
        ReplayState.AWAITING_RELEASE,
    }
)


class RehearsalLedger:
    """What a replay in a copy of one store takes for the ledger (`Ledger`).

    Read is the ledger itself, as it was when this was made: who has been erased since is not in it. Of what
    is written nothing reaches the ledger: where the copy's journal stands, and what came of its replay, is
    the copy's, and ends with it.
    """

    _READ = frozenset(
        {
            "confirm",
            "ledger_id",
            "mappings",
            "rejoined",
            "requests_by_id",
        }
    )

    def __init__(
        self,
        context: PassContext,
        store: str,
        as_of: RehearsalLedger | None = None,
        *,
        rewritten: bool = False,
    ) -> None:
        """Freeze what is known of a store; `as_of` another one, knows of nobody whom that does not know.

        `rewritten`: the copy is of a snapshot that was.
        """
        self.rewritten: bool = rewritten if as_of is None else as_of.rewritten
        self._ledger, self._keyring, self._clock, self._store = (
            context.ledger,
            context.keyring,
            context.clock,
            store,
        )
        self._head = context.ledger.known_head(store)
        if as_of is None:
            self.numbers = array("q")
            for some in context.ledger.tombstone_numbers(store):
                self.numbers.extend(some)
            self.absent = context.ledger.absent_addresses(store)
        else:
            self.numbers, self.absent = as_of.numbers, as_of.absent
        self.left_to_requests = False
        """Whether somebody stands in the copy whom a request that has not ended is to look for."""
        self._episodes: dict[str, RestoreEpisode] = {}
        self._found: list[Tombstone] = []

    def __getattr__(self, name: str) -> Any:
        if name not in self._READ:
            raise AttributeError(f"a rehearsal does not ask the ledger for {name}")
        return getattr(self._ledger, name)

    def append(
        self,
        facts: Sequence[Fact] = (),
        *,
        seal: Mapping[str, bytes] | None = None,  # noqa: ARG002 - nothing is sealed in a replay
        moves: Sequence[MoveNote] = (),
    ) -> None:
        """Take note for as long as the copy lives."""
        self._ledger.confirm()
        for fact in facts:
            if isinstance(fact, RestoreFact):
                self._episodes[fact.episode] = evolve_episode(self._episodes.get(fact.episode), fact)
            elif isinstance(fact, FoundAgain):
                self._found += fact.tombstones
                self.left_to_requests |= not fact.tombstones
        for note in moves:
            self._head = moved(self._head, note, self._clock())

    def forgotten_until(self, namespace: str) -> datetime | None:
        """Return until when people were erased who may be in the copy and of whom nothing is known any more.

        Whoever is forgotten is in no snapshot that was known. Its journal tells nothing of a rewrite.
        """
        return None if self.rewritten else self._ledger.forgotten_until(namespace)

    def absent_addresses(self, store: str) -> Mapping[bytes, str]:  # noqa: ARG002 - there is one
        """Return by which addresses nobody was found."""
        return self.absent

    def known_head(self, store: str) -> Any:  # noqa: ARG002 - there is one
        """Return where the copy's journal stands."""
        return self._head

    def episodes(self, *, store: str | None = None, open_only: bool = False) -> Sequence[RestoreEpisode]:
        """Return the store's restores that were dealt with, and the copy's own."""
        before = [one for one in self._ledger.episodes(store=store) if not one.open]
        return [one for one in (*before, *self._episodes.values()) if one.open or not open_only]

    def tombstones(self, store: str, *, chunk: int = 50_000) -> Iterator[Sequence[Tombstone]]:
        """Yield who was erased in the store, and who was found in the copy besides."""
        for some in self._ledger.tombstones(store, chunk=chunk):
            if known := self._known(some, [one.number for one in some]):
                yield known
        if self._found:
            yield tuple(self._found)

    def tombstone_numbers(self, store: str) -> Iterator[Sequence[int]]:
        """Yield the numbers of what `tombstones` yields."""
        for numbers in self._ledger.tombstone_numbers(store):
            yield self._known(numbers, numbers)
        yield [one.number for one in self._found]

    def _known(self, some: Sequence[_T], numbers: Sequence[int]) -> Sequence[_T]:
        """Return those that were known when this was made, mostly all; both sequences ascend."""
        if not numbers:
            return some
        first, end = bisect_left(self.numbers, numbers[0]), bisect_right(self.numbers, numbers[-1])
        if end - first == len(numbers):
            return some
        known = set(self.numbers[first:end])
        return [one for one, number in zip(some, numbers, strict=True) if number in known]

    def tombstone_count(self, store: str) -> int:
        """Return how many erasures the store has."""
        return self._ledger.tombstone_count(store) + len(self._found)

    def who_erased(self, digests: Collection[bytes]) -> Mapping[bytes, str]:
        """Return who erased these, in the store or in the copy."""
        own = {
            record_digest(self._keyring, self._store, one.table, one.key): one.request for one in self._found
        }
        return {**self._ledger.who_erased(digests), **{d: own[d] for d in digests if d in own}}


class _Timed:
    """A store of which it is noted how long reading back took, and what it showed last."""

    def __init__(self, port: Store) -> None:
        self._port = port
        self.seconds = 0.0
        self.residue = Residue()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    def check(
        self, chunks: Iterable[Sequence[Tombstone]], matcher: IdentityMatcher, *, exclusive: bool = False
    ) -> Residue:
        """See `Store.check`."""
        began = time.monotonic()
        self.residue = self._port.check(chunks, matcher, exclusive=exclusive)
        self.seconds += time.monotonic() - began
        return self.residue


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What a replay in a copy came to. Durations are in seconds; `seconds` holds `verification_seconds`.

    `session` is that of the copy, `ledger` what was known, `journal` where that of the copy stood before, for
    `Journaled.put_back_journal`.
    """

    step: ReplayStep
    erased_again: int
    left_alone: int
    missed: int
    seconds: float
    verification_seconds: float
    session: StoreSession
    ledger: RehearsalLedger
    journal: object


def rehearse(
    session: StoreSession,
    context: PassContext,
    halted: Callable[[], bool],
    *,
    as_of: RehearsalLedger | None = None,
    rewritten: bool = False,
) -> Rehearsed:
    """Apply every erasure of a store again in a restored copy of it, and read back each.

    `session` is that of the store, with the port to the copy. No hold keeps anybody from being erased there:
    the copy is dropped, and what is to come of the snapshot is asked later. `as_of` is what an earlier one
    knew; `rewritten` says that the copy is of a snapshot that was. Raises `StoreError`.
    """
    began = time.monotonic()
    timed = _Timed(session.port)
    session = replace(session, port=cast("Store", timed))
    ledger = RehearsalLedger(context, session.name, as_of, rewritten=rewritten)
    context = replace(context, ledger=cast("Ledger", ledger))
    session.note_proof(session.port.prove(ledger.mappings(session.name).values()))
    journal = session.journaled.remember_journal() if session.journaled is not None else None
    observed = session.port.observe()
    finding = compare(ledger.known_head(session.name), observed)
    by = detected_by(finding) if finding in WENT_BACK else DetectedBy.DECLARATION
    open_episode(session, context, by, observed=observed)
    step = ReplayStep(ReplayState.WAITING)
    for _ in range(MOST_LOOKS):
        episode = open_episode_of(session, context)
        if step.state in _ENDS or episode is None or halted():
            break
        step = replay(session, episode, context, Holds())
        if step.state is ReplayState.WAITING:
            time.sleep(LOOK_SECONDS)
    latest = ledger.episodes(store=session.name)[-1]
    residue = timed.residue
    return Rehearsed(
        step,
        latest.re_erased,
        residue.left_alone,
        len(residue.uncleared) + len(residue.unclear),
        time.monotonic() - began,
        timed.seconds,
        session,
        ledger,
        journal,
    )
