"""One visit to a store: prove, look or replay, check what was erased, serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from lethe.domain.facts import MappingProved
from lethe.domain.legal import Holds
from lethe.domain.requests import RequestRecord
from lethe.domain.restores import RestoreEpisode
from lethe.ports.keys import Keyring
from lethe.ports.ledger import Ledger
from lethe.ports.stores import AnswerUntrusted, HeadMoved, MappingInvalid, StoreError, StoreUnreachable
from lethe.workflows import erasing, replaying, watching
from lethe.workflows.holding import read_holds
from lethe.workflows.intending import PassResult
from lethe.workflows.reaching import SubjectContact, find_contacts, resolve
from lethe.workflows.store_session import StoreSession, open_episode_of


@dataclass(frozen=True, slots=True)
class PassPlan:
    """What a visit is to do besides serving: `look` at the journal, `sweep` everything, `tidy` statistics.

    `release` is a person's word on an open restore: `(episode, because)`. `contacts_of` are the legal
    requests whose subjects are to be told something now: the Primary is asked how.
    """

    look: bool = True
    sweep: bool = False
    tidy: bool = False
    manual_release: bool = False
    release: tuple[str, str] | None = None
    contacts_of: frozenset[str] = frozenset()


@dataclass(slots=True)
class StorePass:
    """What a visit came to.

    `episodes` are the restores that it had to do with, `opened` tells that it found a new one, `step`
    where a replay stands. `re_erased` people had been written back; `unclear` rows can be anybody's.
    `touched` are the open requests that were not settled here. `looked` and `swept` tell what was done.
    `resolved` tells that subjects of legal requests were looked for, `contacts` how to reach them.
    """

    served: PassResult | None = None
    episodes: list[RestoreEpisode] = field(default_factory=list)
    step: replaying.ReplayStep | None = None
    opened: bool = False
    released: bool = False
    re_erased: int = 0
    unclear: int = 0
    head_moved: bool = False
    looked: bool = False
    swept: bool = False
    touched: list[RequestRecord] = field(default_factory=list)
    resolved: bool = False
    contacts: Mapping[str, SubjectContact] = field(default_factory=dict)

    @property
    def gate_opened(self) -> bool:
        """Tell whether this visit let a restored store be served again."""
        return self.released or (self.step is not None and self.step.state is replaying.ReplayState.SAFE)


class LedgerOnSameServer(StoreError):
    """The ledger lives on the server that it guards: a restore of that server would rewind both."""

    def __init__(self) -> None:
        super().__init__(
            "LETHE_LEDGER_URL leads to the same database server as this store, so one restore would rewind "
            "both",
            "put the ledger on another server, or on a volume",
        )


def reconcile_store(
    store: StoreSession,
    records: Sequence[RequestRecord],
    ledger: Ledger,
    keyring: Keyring,
    plan: PassPlan,
    *,
    primary: str | None,
    token: int,
    now: datetime,
) -> StorePass:
    """Visit a store once. Errors of the store become its `trouble`; those of the ledger are raised."""
    done = StorePass()
    try:
        look = plan.look
        if store.proof is None:
            prove(store, ledger)
            look = True  # what was proved is recorded only when a look has shown a store in step
        store.trouble = store.trouble_reason = None
        if look:
            holds = read_holds(ledger, keyring, store, primary=primary)
            _look(store, ledger, holds, plan, done, token=token, now=now)
        if store.ledger_behind:
            store.trouble_reason = "LedgerBehind"
            store.trouble = (
                "the store's journal is ahead of the ledger: the ledger went back in time. Restore the "
                "newest ledger (docs/operations.md, 'The ledger went back'); until then nothing is erased"
            )
        elif open_episode_of(store, ledger) is None:
            if store.is_primary:
                done.resolved = resolve(store, ledger, now=now)
                done.contacts = find_contacts(store, ledger, plan.contacts_of) if plan.contacts_of else {}
            _serve(store, records, ledger, keyring, done, primary=primary, token=token, now=now)
    except (StoreUnreachable, AnswerUntrusted) as away:
        store.trouble, store.trouble_reason = str(away), "Unreachable"
    except LedgerOnSameServer as same:
        store.trouble, store.trouble_reason = str(same), "LedgerOnSameServer"
    except MappingInvalid as invalid:
        store.trouble, store.trouble_reason = str(invalid), "MappingInvalid"
        store.proof = None
    except HeadMoved:
        done.head_moved = True
    except StoreError as unusable:
        store.trouble, store.trouble_reason = str(unusable), "Unreachable"
    return done


def prove(store: StoreSession, ledger: Ledger) -> None:
    """Prove a store's mapping against its live schema.

    Raises `MappingInvalid`, `StoreUnreachable`, `AnswerUntrusted`, `LedgerOnSameServer`.
    """
    store.port.remember(ledger.mappings(store.name).values())
    try:
        proof = store.port.prove()
    except MappingInvalid as invalid:
        never_erased = ledger.known_head(store.name).head is None
        if never_erased or open_episode_of(store, ledger) is not None:
            raise
        # A mapping that was fine and is not: in the middle of a restore tables are missing.
        problem = f"its schema is not as it was ({invalid})"
        raise StoreUnreachable(problem, "is it being restored?") from None
    if ledger.server is not None and proof.server == ledger.server:
        raise LedgerOnSameServer
    store.port.remember([proof.proved])
    store.proof = proof


def _look(
    store: StoreSession,
    ledger: Ledger,
    holds: Holds,
    plan: PassPlan,
    done: StorePass,
    *,
    token: int,
    now: datetime,
) -> None:
    done.looked = True
    episode = open_episode_of(store, ledger)
    if episode is not None:
        _deal_with(store, episode, ledger, holds, plan, done, token=token, now=now)
    elif watching.detect_restore(store, ledger, token=token, now=now) is watching.Detection.FINE:
        _record_mapping(store, ledger)
        _check_erasures(store, ledger, holds, plan, done, token=token, now=now)
    current = open_episode_of(store, ledger)
    done.opened = current is not None and (episode is None or current.episode != episode.episode)
    concerned = {e.episode for e in (episode, current) if e is not None}
    if concerned:
        done.episodes = [e for e in ledger.episodes(store=store.name) if e.episode in concerned]


def _deal_with(
    store: StoreSession,
    episode: RestoreEpisode,
    ledger: Ledger,
    holds: Holds,
    plan: PassPlan,
    done: StorePass,
    *,
    token: int,
    now: datetime,
) -> None:
    released, because = plan.release or ("", "")
    if released == episode.episode:
        replaying.release(store, episode, ledger, because=because, token=token, now=now)
        done.released = True
    else:
        done.step = replaying.replay(
            store, episode, ledger, holds, token=token, now=now, manual_release=plan.manual_release
        )
    if done.gate_opened:
        store.last_sweep_at = now


def _record_mapping(store: StoreSession, ledger: Ledger) -> None:
    """Record what was proved, now that a look has shown that no restore is going on.

    A schema half restored lacks constraints, and what is recorded says which there have to be.
    """
    proved = store.proof.proved if store.proof else None
    if proved is not None and ledger.mappings(store.name).get(proved.version) != proved:
        ledger.append([MappingProved(store.name, proved)])


def _check_erasures(
    store: StoreSession,
    ledger: Ledger,
    holds: Holds,
    plan: PassPlan,
    done: StorePass,
    *,
    token: int,
    now: datetime,
) -> None:
    found = watching.probe(store, ledger, holds, token=token, now=now)
    if plan.sweep or store.sweep_wanted:
        done.swept = True
        swept = watching.sweep(store, ledger, holds, token=token, now=now)
        done.re_erased, done.unclear = swept.re_erased, swept.unclear
    done.re_erased += found.re_erased
    done.unclear = max(done.unclear, found.unclear)
    if plan.tidy:
        store.port.tidy()


def _serve(
    store: StoreSession,
    records: Sequence[RequestRecord],
    ledger: Ledger,
    keyring: Keyring,
    done: StorePass,
    *,
    primary: str | None,
    token: int,
    now: datetime,
) -> None:
    done.touched = [record for record in records if not record.progress(store.name).state.settled]
    if done.touched:
        done.served = erasing.serve(
            store, done.touched, ledger, keyring, primary=primary, token=token, now=now
        )
