"""One visit to a store: prove, look or replay, check what was erased, serve."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from lethe.domain.facts import DetectedBy, MappingProved
from lethe.domain.journal import WENT_BACK, HeadFinding, compare
from lethe.domain.legal import Holds
from lethe.domain.requests import RequestRecord
from lethe.domain.restores import Release, RestoreEpisode
from lethe.domain.trouble import Trouble, TroubleReason
from lethe.ports.stores import (
    BeingFilled,
    HeadMoved,
    InRecovery,
    MappingInvalid,
    StoreError,
    StoreUnreachable,
)
from lethe.workflows.erasure import erase
from lethe.workflows.erasure.find import PassResult
from lethe.workflows.legal.contact import resolve
from lethe.workflows.legal.holds import read_holds
from lethe.workflows.pass_context import PassContext
from lethe.workflows.restore import detect, replay
from lethe.workflows.restore.catch_up import carry_on, count_catch_up
from lethe.workflows.restore.episode import (
    detected_by,
    open_episode,
    open_episode_of,
    release_of,
    standing_release,
)
from lethe.workflows.restore.rejoined import remember_rejoined
from lethe.workflows.store_session import StoreSession


@dataclass(frozen=True, slots=True)
class PassPlan:
    """What a visit is to do besides serving: `look` at the journal, `sweep` everything, `tidy` statistics.

    `releases` are persons' words that the store may be served, by RestoreEvent. `restore_ended`
    tells that by a person's word one has ended since the store was last looked at. `watched` are the stores
    that have a DataStore.
    """

    look: bool = True
    sweep: bool = False
    tidy: bool = False
    manual_release: bool = False
    restore_ended: bool = False
    releases: Mapping[str, Release] = field(default_factory=dict)
    watched: frozenset[str] = frozenset()


@dataclass(slots=True)
class StorePass:
    """What a visit came to.

    `episodes` are the restores that it had to do with, `opened` tells that it found a new one, `step`
    where a replay stands. `re_erased` people had been written back; `unclear` rows can be anybody's.
    `standing_release` is the last restore, if a person let the store be served after it (asked by a look).
    `touched` are the open requests that were not settled here. `looked`, `swept` and `tidied` tell what was
    done.
    `resolved` tells that subjects of legal requests were looked for.
    `trouble` is why the store can't be used now.
    """

    served: PassResult | None = None
    episodes: list[RestoreEpisode] = field(default_factory=list)
    step: replay.ReplayStep | None = None
    opened: bool = False
    released: bool = False
    standing_release: RestoreEpisode | None = None
    re_erased: int = 0
    unclear: int = 0
    head_moved: bool = False
    looked: bool = False
    swept: bool = False
    tidied: bool = False
    touched: list[RequestRecord] = field(default_factory=list)
    resolved: bool = False
    trouble: Trouble | None = None

    @property
    def gate_opened(self) -> bool:
        """Tell whether this visit let a restored store be served again."""
        return self.released or (self.step is not None and self.step.state is replay.ReplayState.SAFE)

    @property
    def knows_releases(self) -> bool:
        """Tell whether the look was not cut off, so that `standing_release` says whether there is one."""
        return self.looked and not self.head_moved and self.trouble is None


_STANDS_STILL = frozenset({HeadFinding.IN_STEP, HeadFinding.PENDING_COMMITTED, HeadFinding.PENDING_LOST})

LEDGER_BEHIND = Trouble(
    TroubleReason.LEDGER_BEHIND,
    "the store's journal is ahead of the ledger: the ledger went back in time. Restore the newest ledger "
    "(docs/operations.md, 'The ledger went back'); until then nothing is erased",
)


class LedgerOnSameServer(StoreError):
    """The ledger lives on the server that it guards: a restore of that server would rewind both."""

    def __init__(self) -> None:
        super().__init__(
            "LETHE_LEDGER_URL leads to the same database server as this store, so one restore would rewind "
            "both",
            "put the ledger on another server, or on a volume",
        )


class KnownByAnotherName(StoreError):
    """What was erased in this table is remembered under a name that no DataStore has any more."""

    def __init__(self, session: StoreSession, other: str, erased: int) -> None:
        namespace, _, name = other.partition("/")
        own = session.description
        super().__init__(
            f"this table was known as {other}, and {erased} records were erased in it under that name",
            f"take them over with spec.formerly: {name}"
            if namespace == own.namespace
            else f"apply it in the namespace {namespace}, as {name} or with spec.formerly: {name}",
        )


def reconcile_store(
    session: StoreSession,
    records: Sequence[RequestRecord],
    context: PassContext,
    plan: PassPlan,
    *,
    primary: str | None,
) -> StorePass:
    """Visit a store once. Errors of the store become the pass's `trouble`; those of the ledger are raised."""
    done = StorePass()
    proved_before = session.proof is not None
    # What was wrong is so until a look has shown otherwise; and what was proved is recorded only when one has
    # shown it in step.
    look = plan.look or session.trouble is not None or not proved_before
    episode = open_episode_of(session, context) if look else None
    try:
        if not proved_before:
            _prove_first(session, episode, context, plan)
        if look:
            holds = read_holds(session, context, primary=primary)
            _look(session, episode, context, holds, plan, done, prove_anew=plan.sweep and proved_before)
        if session.ledger_behind:
            done.trouble = LEDGER_BEHIND
        elif open_episode_of(session, context) is None:
            if session.is_primary:
                done.resolved = resolve(session, context)
            _serve(session, records, context, done, primary=primary)
    except HeadMoved:
        done.head_moved = True
    except MappingInvalid as invalid:
        done.trouble = Trouble(TroubleReason.MAPPING_INVALID, str(invalid))
        session.forget_proof()
    except LedgerOnSameServer as same:
        done.trouble = Trouble(TroubleReason.LEDGER_ON_SAME_SERVER, str(same))
    except KnownByAnotherName as other:
        done.trouble = Trouble(TroubleReason.OTHER_NAME, str(other))
    except InRecovery as standby:
        done.trouble = Trouble(TroubleReason.IN_RECOVERY, str(standby))
    except StoreError as away:
        done.trouble = Trouble(TroubleReason.UNREACHABLE, str(away))
    _note_episodes(session, episode, context, done, looked=look)
    session.note_trouble(done.trouble)
    return done


def _prove_first(
    session: StoreSession, episode: RestoreEpisode | None, context: PassContext, plan: PassPlan
) -> None:
    """Prove a store that is not proved; of one that is being restored the replay says what it lacks."""
    try:
        prove(session, context, watched=plan.watched)
    except MappingInvalid:
        if episode is None:
            raise


def prove(session: StoreSession, context: PassContext, *, watched: Collection[str] = ()) -> None:
    """Prove a store's mapping against its live schema. `watched` are the stores that have a DataStore.

    Raises `MappingInvalid`, `StoreUnreachable`, `AnswerUntrusted`, `LedgerOnSameServer`,
    `KnownByAnotherName`.
    """
    try:
        proof = session.port.prove(context.ledger.mappings(session.name).values())
    except (MappingInvalid, BeingFilled) as unproved:
        known = context.ledger.known_head(session.name)
        if known.head is None or open_episode_of(session, context) is not None:
            raise
        observed = session.port.observe()
        finding = compare(known, observed)
        if finding in WENT_BACK:
            # The gate closes now: who comes back can be read long before there are keys to erase her by.
            open_episode(session, context, detected_by(finding), observed=observed)
            raise
        if isinstance(unproved, BeingFilled) or (finding in _STANDS_STILL and observed.filling is None):
            raise  # nobody put it back: a migration changed it
        # A mapping that was fine and is not: in the middle of a restore tables are missing.
        problem = f"its schema is not as it was ({unproved})"
        raise StoreUnreachable(problem, "is it being restored?") from None
    if context.ledger.server is not None and proof.server == context.ledger.server:
        raise LedgerOnSameServer
    for other in proof.beside:
        tables = {one.mapping.table.rpartition(".")[2] for one in context.ledger.mappings(other).values()}
        same_table = proof.proved.mapping.table.rpartition(".")[2] in tables
        erased = context.ledger.tombstone_count(other) if same_table and other not in watched else 0
        if erased:
            raise KnownByAnotherName(session, other, erased)
    session.note_proof(proof)


def _look(
    session: StoreSession,
    episode: RestoreEpisode | None,
    context: PassContext,
    holds: Holds,
    plan: PassPlan,
    done: StorePass,
    *,
    prove_anew: bool,
) -> None:
    done.looked = True
    before = context.ledger.known_head(session.name).settled_at if plan.restore_ended else None
    if episode is not None:
        _deal_with(session, episode, context, holds, plan, done)
    elif detect.detect_restore(session, context) is detect.Detection.FINE and not plan.restore_ended:
        if prove_anew:  # tables and columns may have come, or gone, since
            prove(session, context)
        _record_mapping(session, context)
        _check_erasures(session, context, holds, plan, done)
    elif plan.restore_ended and not session.ledger_behind:
        # Whatever was restored need not show in head and identity: all that was erased is read back.
        open_episode(session, context, DetectedBy.DECLARATION, missing_since=before)
    if open_episode_of(session, context) is None:
        done.standing_release = standing_release(session, context)


def _note_episodes(
    session: StoreSession,
    before: RestoreEpisode | None,
    context: PassContext,
    done: StorePass,
    *,
    looked: bool,
) -> None:
    """Note the restores that a look had to do with, also one that was cut off."""
    if not looked:
        return
    current = open_episode_of(session, context)
    done.opened = current is not None and (before is None or current.episode != before.episode)
    if done.opened and done.trouble is not None and done.trouble.reason is TroubleReason.MAPPING_INVALID:
        done.trouble = None  # what a restore has not made yet is no fault of the mapping
    concerned = {e.episode for e in (before, current) if e is not None}
    if concerned:
        done.episodes = [e for e in context.ledger.episodes(store=session.name) if e.episode in concerned]


def _deal_with(
    session: StoreSession,
    episode: RestoreEpisode,
    context: PassContext,
    holds: Holds,
    plan: PassPlan,
    done: StorePass,
) -> None:
    released = release_of(episode, plan.releases)
    if released is not None and released[1].uid:
        replay.release(session, episode, context, holds, by=released[0], word=released[1])
        done.released = True
    else:
        manual = plan.manual_release
        done.step = replay.replay(session, episode, context, holds, manual_release=manual, released=released)


def _record_mapping(session: StoreSession, context: PassContext) -> None:
    """Record what was proved, now that a look has shown that no restore is going on.

    A schema half restored lacks constraints, and what is recorded says which there have to be.
    """
    proved = session.proof.proved if session.proof else None
    if proved is not None and context.ledger.mappings(session.name).get(proved.version) != proved:
        context.ledger.append([MappingProved(session.name, proved)])


def _check_erasures(
    session: StoreSession, context: PassContext, holds: Holds, plan: PassPlan, done: StorePass
) -> None:
    if plan.sweep or session.sweep_wanted:
        remember_rejoined(session, context)
    found = detect.probe(session, context, holds)
    if plan.sweep or session.sweep_wanted:
        done.swept = True
        swept = detect.sweep(session, context, holds)
        done.re_erased, done.unclear = swept.re_erased, swept.unclear
        if open_episode_of(session, context) is None and count_catch_up(session, context):
            prove(session, context)
    if open_episode_of(session, context) is None:
        carry_on(session, context, holds)
    done.re_erased += found.re_erased
    done.unclear = max(done.unclear, found.unclear)
    if plan.tidy and session.journaled is not None:
        session.note_tidied(session.journaled.tidy())
        done.tidied = True


def _serve(
    session: StoreSession,
    records: Sequence[RequestRecord],
    context: PassContext,
    done: StorePass,
    *,
    primary: str | None,
) -> None:
    done.touched = [record for record in records if not record.progress(session.name).state.settled]
    if done.touched:
        done.served = erase.serve(session, done.touched, context, primary=primary)
        done.trouble = done.served.trouble
