"""Each kind of restore of a real PostgreSQL: when it is seen, and how soon all are erased again.

Measured in looks: what a look takes is the user's choice (`LETHE_JOURNAL_INTERVAL`). People are the site's of
`devtools/company.py`. `early` was erased before the backup; `ada` and `bob` after it, with a moment
between the two that can be recovered to; `zed` signed up after the backup and was erased with `bob`. `eve`
signs up when the restore has ended, under a key that it may have set free; `fay` is about to be erased. The
crowd stays.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import errors

from bench.figures import Figure
from devtools import company
from devtools.restores import CRM_ALONE, KINDS, RestoreKind, Site, When, server_for
from devtools.servers.postgres import PostgresServer
from devtools.servers.tryton import TrytonServer
from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import SqlLedger, open_ledger
from lethe.adapters.stores.sql.store import SqlStore
from lethe.adapters.stores.tryton import TrytonStore
from lethe.api.translation import subject_mapping
from lethe.api.v1alpha1.datastore_sql import Subjects
from lethe.domain.gates import GateState, verdict_of
from lethe.domain.identifiers import email_identifier
from lethe.domain.mapping import StoreOwner, StoreRole
from lethe.domain.periods import Period
from lethe.domain.restores import RestoreEpisode
from lethe.workflows.erasure import accept, erase
from lethe.workflows.erasure.accept import ErasureOrder
from lethe.workflows.pass_context import PassContext
from lethe.workflows.restore.replay import ReplayState
from lethe.workflows.store_pass import PassPlan, StorePass, reconcile_store
from lethe.workflows.store_session import StoreDescription, StoreSession, fingerprints_of

BENCH = "restores"
NAMESPACE, NAME = "bench", "site"
STORE = f"{NAMESPACE}/{NAME}"
DESCRIPTION = StoreDescription(NAMESPACE, NAME, StoreRole.PRIMARY, StoreOwner.SELF)
CROWD = 40
MOST_LOOKS = 20
MOST_SAID = 110
"""Characters of one message in the table."""


_numbers = count(1)

_STANDS = """
SELECT 1 FROM public.users WHERE email = %(email)s OR last_name = %(last)s OR first_name = %(first)s
UNION ALL SELECT 1 FROM public.comments WHERE signature = %(last)s
"""
_INTACT = """
SELECT 1 FROM public.users u WHERE email = %(email)s AND last_name = %(last)s AND first_name = %(first)s
   AND password_hash = 'hash' AND EXISTS (SELECT 1 FROM public.sessions WHERE user_id = u.id)
   AND EXISTS (SELECT 1 FROM public.comments WHERE author_id = u.id AND signature = %(last)s)
"""


class NotOver(Exception):
    """The gate stays closed."""


@dataclass(frozen=True)
class Look:
    """What a look came to. `shows` is whether an erased person stood uncleared in the store after it."""

    done: StorePass
    gate_open: bool
    shows: bool
    seconds: float

    @property
    def noticed(self) -> bool:
        """Tell whether it found that something had come back."""
        return self.done.opened or self.done.re_erased > 0

    @property
    def replays(self) -> bool:
        """Tell whether it erased again, or tried to."""
        step = self.done.step
        return self.done.re_erased > 0 or (step is not None and step.state is not ReplayState.WAITING)

    @property
    def said(self) -> str:
        """Return what a person reads of it."""
        if self.done.trouble is not None:
            return self.done.trouble.message
        if self.done.re_erased and not self.done.opened:
            return "event `WrittenBackAgain`: so few in a table that stayed need no restore"
        return self.done.step.message if self.done.step is not None else ""


@dataclass(frozen=True)
class Rehearsed:
    """What became of a restore. Looks are counted from its last write: 0 is one before that.

    `exposed` counts the looks after which the gate was open while an erased person stood in the store,
    `reopened` those that opened it before the restore had ended. `wrong` are rows of others that were
    touched, `missed` erased people who stood in the store still, after the gate had opened and a sweep.
    """

    kind: RestoreKind
    detected_by: str
    detected_after: int
    replayed_after: int
    opened_after: int
    opened_after_replay: int
    seconds: float
    erased_again: int
    exposed: int
    reopened: int
    wrong: tuple[str, ...]
    missed: tuple[str, ...]
    said: tuple[str, ...]
    episodes: Sequence[RestoreEpisode] = field(repr=False)


class Lethe:
    """The operator's part, in this process: it looks when it is told to.

    `place` says where the store is by now, `connect` opens it; `clock` is this process's.
    """

    def __init__(
        self,
        directory: Path,
        place: Callable[[], str],
        connect: Callable[[str, str, FileKeyring], Any],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        (directory / "keys").mkdir(parents=True)
        self._directory, self._place, self._open, self._clock = directory, place, connect, clock
        self._keyring = FileKeyring(directory / "keys")
        self.start()

    def start(self) -> None:
        """Begin a process."""
        self.ledger: SqlLedger = open_ledger(f"sqlite:///{self._directory / 'ledger.db'}", self._keyring)
        self._token = self.ledger.take_over()
        self._connect()

    def stop(self) -> None:
        """End it."""
        self._session.port.close()
        self.ledger.close()

    def _connect(self) -> None:
        self._connected_to = self._place()
        port = self._open(self._connected_to, self.ledger.ledger_id, self._keyring)
        self._session = StoreSession(DESCRIPTION, port, fingerprints_of(self._keyring, STORE))

    @property
    def _context(self) -> PassContext:
        return PassContext(self.ledger, self._keyring, self._token, self._clock)

    def ask(self, name: str, *, key: int | None = None, email: str | None = None) -> None:
        """Take on a request for an erasure."""
        order = ErasureOrder(
            NAMESPACE,
            name,
            f"uid-{name}",
            name,
            self._clock(),
            subject_id=None if key is None else str(key),
            identifier=None if email is None else email_identifier(email),
        )
        accept.accept([order], self._context, deadline=Period(1, 0), stores={NAMESPACE: [STORE]})

    def look(self, *, sweep: bool = False) -> StorePass:
        """Visit the store once."""
        if self._connected_to != self._place():
            self._session.port.close()
            self._connect()
        requests = self.ledger.open_requests()
        plan = PassPlan(sweep=sweep, watched=frozenset({STORE}))
        done = reconcile_store(self._session, requests, self._context, plan, primary=STORE)
        erase.complete(self.ledger.open_requests(), self._context, {NAMESPACE: [DESCRIPTION]})
        return done

    @property
    def gate_open(self) -> bool:
        """Tell whether a pod that serves goes on serving."""
        episode = next(iter(self.ledger.episodes(store=STORE, open_only=True)), None)
        replay = None if episode is None else ("Replaying", episode.episode)
        trouble = self._session.trouble
        verdict = verdict_of(NAME, replay, trouble, seen=trouble is None, was_safe=True)
        return verdict.state is not GateState.CLOSED

    @property
    def why(self) -> str:
        """Say what keeps it from going on."""
        session = self._session
        blockers = [str(one) for one in session.blockers.values()]
        return f"{session.trouble}, {blockers}, {self.ledger.episodes(store=STORE)}"

    @contextmanager
    def before_next_erasure(self, do: Callable[[], None]) -> Iterator[None]:
        """Do something when the store is about to be asked to erase somebody."""
        port: Any = self._session.port
        self._session.port = _Interrupted(port, do)
        yield
        self._session.port = port


class _Interrupted:
    """A store's port that is interrupted once, before it erases."""

    def __init__(self, port: Any, do: Callable[[], None]) -> None:
        self._port, self._todo = port, [do]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    def erase(self, *args: Any, **options: Any) -> Any:
        while self._todo:
            self._todo.pop()()
        return self._port.erase(*args, **options)


class Rehearsal:
    """One kind of restore from beginning to end."""

    def __init__(self, kind: RestoreKind, site: Site) -> None:
        self._kind, self._site = kind, site
        site.name, site.look = f"site_{next(_numbers)}", self._look_meanwhile
        self._people = company.Site(site.server.create_database(site.name))
        self._during, self._after = list[Look](), list[Look]()
        self._keys: dict[str, int] = {}
        self._erased: set[str] = set()
        self._sign_up("early", "ada", "bob", "cleo", "fay", *(f"n{n}" for n in range(CROWD)))
        self._steps = kind.steps(site)
        if kind.before_lethe:
            next(self._steps)
        self._lethe = Lethe(site.folder / "lethe", lambda: site.server.url(site.name), _sql)
        site.stack.callback(self._lethe.stop)

    def run(self) -> Rehearsed:
        """Back up, erase, restore, and look until the gate is open."""
        self._lethe.look()
        self._erase("early")
        if not self._kind.before_lethe:
            next(self._steps)
        self._sign_up("zed")
        self._erase("ada")
        self._site.between = self._site.server.psql("SELECT clock_timestamp()")
        self._erase("bob", "zed")
        self._restore()
        self._people.url = self._site.server.url(self._site.name)
        self._sign_up("eve")
        while not self._over():
            if len(self._after) == MOST_LOOKS:
                raise NotOver(
                    f"{self._kind}: {self._after[-1].said}, {self._lethe.ledger.episodes(store=STORE)}"
                )
            self._after.append(self._look())
        return self._told()

    def _sign_up(self, *names: str) -> None:
        keys = self._people.sign_up(*(f"{name}@people.example" for name in names))
        self._keys |= dict(zip(names, keys, strict=True))

    def _erase(self, *names: str) -> None:
        for name in names:
            self._lethe.ask(name, key=self._keys[name])
        self._erased |= {*names}
        for _ in range(MOST_LOOKS):
            self._lethe.look()
            if not self._lethe.ledger.open_requests():
                return
        raise NotOver(f"{names} are not erased: {self._lethe.why}")

    def _restore(self) -> None:
        def restore() -> None:
            for _ in self._steps:
                raise RuntimeError(f"{self._kind} yields once")

        if self._kind.when is When.OPERATOR_DOWN:
            self._lethe.stop()
            restore()
            self._lethe.start()
        elif self._kind.when is When.DURING_AN_ERASURE:
            self._lethe.ask("fay", key=self._keys["fay"])
            with self._lethe.before_next_erasure(restore):
                self._lethe.look()
            self._erased.add("fay")
        else:
            restore()

    def _look_meanwhile(self) -> None:
        self._during.append(self._look())

    def _look(self, *, sweep: bool = False) -> Look:
        before = time.perf_counter()
        done = self._lethe.look(sweep=sweep)
        seconds = time.perf_counter() - before
        return Look(done, self._lethe.gate_open, bool(self._standing()), seconds)

    def _over(self) -> bool:
        last = self._after[-1] if self._after else None
        quiet = last is not None and last.gate_open and not last.noticed and last.done.trouble is None
        return quiet and not self._lethe.ledger.open_requests() and any(map(_noticed, self._looks))

    @property
    def _looks(self) -> list[Look]:
        return [*self._during, *self._after]

    def _standing(self) -> tuple[str, ...]:
        """Return who was erased and stands in the store all the same, read past Lethe."""
        url = self._site.server.url(self._site.name)
        return tuple(name for name in sorted(self._erased) if _holds(url, _STANDS, name))

    def _told(self) -> Rehearsed:
        sweep = self._look(sweep=True)
        episodes = self._lethe.ledger.episodes(store=STORE)
        replays = [n for n, one in enumerate(self._after, 1) if one.replays] or [0]
        opened = next(n for n, one in enumerate(self._after, 1) if one.gate_open and n >= replays[0])
        written_back = sum(one.done.re_erased for one in self._looks)
        closed = [one.gate_open for one in self._during]
        since = closed.index(False) if False in closed else len(closed)
        url = self._site.server.url(self._site.name)
        others = [name for name in self._keys if name not in self._erased]
        looks = self._after[replays[0] - 1 : opened]
        return Rehearsed(
            kind=self._kind,
            detected_by=" and ".join(dict.fromkeys(one.detected_by.value for one in episodes)) or "Probe",
            detected_after=0
            if any(map(_noticed, self._during))
            else next(n for n, one in enumerate(self._after, 1) if one.noticed),
            replayed_after=replays[0],
            opened_after=opened,
            opened_after_replay=opened - replays[-1],
            seconds=sum(one.seconds for one in looks),
            erased_again=sum(one.re_erased for one in episodes) + written_back + sweep.done.re_erased,
            exposed=sum(one.gate_open and one.shows for one in (*self._looks, sweep)),
            reopened=sum(closed[since:]),
            wrong=tuple(name for name in others if not _holds(url, _INTACT, name)),
            missed=self._standing(),
            said=tuple(dict.fromkeys(_plain(one.said) for one in self._looks if one.said)),
            episodes=episodes,
        )


def _noticed(look: Look) -> bool:
    return look.noticed


def rehearse(kind: RestoreKind, shared: PostgresServer, folder: Path) -> Rehearsed:
    """Go through one kind of restore, on a server of its own where it needs one.

    Raises `NotOver` where the gate stays closed.
    """
    with server_for(kind, shared, folder) as site:
        return Rehearsal(kind, site).run()


def _holds(url: str, query: LiteralString, name: str) -> bool:
    """Ask for somebody, past Lethe; in the midst of a restore nobody can be shown by what is not there."""
    values = {"email": f"{name}@people.example", "last": f"Last-{name}", "first": f"First-{name}"}
    try:
        with psycopg.connect(url, autocommit=True, options="-c lock_timeout=200") as connection:
            return connection.execute(query, values).fetchone() is not None
    except (errors.UndefinedTable, errors.LockNotAvailable, psycopg.OperationalError):
        return False


def _plain(said: str) -> str:
    """Return what is said without what is another one each time."""
    plain = re.sub(r" since \S+Z", " since …", re.sub(r"session \d+", "session N", said))
    return plain if len(plain) <= MOST_SAID else f"{plain[:MOST_SAID]}…"


def _sql(url: str, ledger_id: str, keyring: FileKeyring) -> SqlStore:
    mapping = subject_mapping(Subjects.model_validate(company.SUBJECTS))
    return SqlStore(url, mapping, ledger_id=ledger_id, store=STORE, keyring=keyring, primary=True)


def bench_restores() -> list[Rehearsed]:
    """Go through every kind."""
    done = list[Rehearsed]()
    with (
        tempfile.TemporaryDirectory(prefix="lethe-bench-") as root,
        PostgresServer(Path(root) / "postgres", fsync=False) as shared,
    ):
        for number, kind in enumerate(KINDS):
            folder = Path(root) / str(number)
            folder.mkdir()
            done.append(rehearse(kind, shared, folder))
        done.append(rehearse_crm(Path(root)))
    return done


def rehearse_crm(folder: Path) -> Rehearsed:
    """Put a Tryton's database back alone, in which two people were erased since."""
    erased = ("ada@people.example", "bob@people.example")
    with TrytonServer(folder / "tryton", databases=("crm",)) as server, ExitStack() as stack:

        def connect(url: str, _: str, keyring: FileKeyring) -> TrytonStore:
            return TrytonStore(url, "crm", server.user, server.password, store=STORE, keyring=keyring)

        ahead = timedelta()
        clock = lambda: datetime.now(UTC) + ahead  # noqa: E731
        lethe = Lethe(folder / "crm", lambda: server.url, connect, clock)
        stack.callback(lethe.stop)
        people = (*erased, *(f"n{n}@people.example" for n in range(CROWD)))
        parties = server.create_parties("crm", [(f"Last-{one}", one, "en") for one in people])
        lethe.look()
        server.copy("crm", folder / "crm.sqlite")
        ahead = timedelta(minutes=10)  # nobody's clock is trusted to the minute
        for one in erased:
            lethe.ask(one.partition("@")[0], email=one)
        while lethe.ledger.open_requests():
            lethe.look()
        server.put_back("crm", folder / "crm.sqlite")

        def held() -> list[str]:
            rows = server.rpc("crm", "model.party.party.read", parties, ["name"])
            names = {row["id"]: row["name"] for row in rows}
            return [one for party, one in zip(parties, people, strict=True) if names[party]]

        looks = list[Look]()
        while not looks or not lethe.gate_open or looks[-1].noticed:
            before = time.perf_counter()
            done = lethe.look()
            seconds = time.perf_counter() - before
            looks.append(Look(done, lethe.gate_open, bool({*held()} & {*erased}), seconds))
        (episode,) = lethe.ledger.episodes(store=STORE)
        replayed = [n for n, one in enumerate(looks, 1) if one.replays]
        return Rehearsed(
            kind=CRM_ALONE,
            detected_by=episode.detected_by.value,
            detected_after=next(n for n, one in enumerate(looks, 1) if one.noticed),
            replayed_after=replayed[0],
            opened_after=len(looks),
            opened_after_replay=len(looks) - replayed[-1],
            seconds=sum(one.seconds for one in looks[replayed[0] - 1 :]),
            erased_again=episode.re_erased,
            exposed=sum(one.gate_open and one.shows for one in looks),
            reopened=0,
            wrong=tuple({*people} - {*erased} - {*held()}),
            missed=tuple({*held()} & {*erased}),
            said=tuple(dict.fromkeys(_plain(one.said) for one in looks if one.said)),
            episodes=[episode],
        )


def figures(done: Sequence[Rehearsed]) -> list[Figure]:
    """Return what holds for all kinds, and how long each replay took."""
    most: Sequence[tuple[str, str, int, Callable[[Rehearsed], int]]] = (
        ("detected after", "looks", 1, lambda one: one.detected_after),
        ("replay begins after", "looks", 2, lambda one: one.replayed_after),
        ("gate opens after the replay", "looks", 2, lambda one: one.opened_after_replay),
        ("gate open over somebody", "looks", 0, lambda one: one.exposed),
        ("rows of others touched", "rows", 0, lambda one: len(one.wrong)),
        ("missed", "people", 0, lambda one: len(one.missed)),
    )
    return [
        *(Figure(BENCH, f"most {name}", max(map(of, done)), unit, aim) for name, unit, aim, of in most),
        *(Figure(BENCH, f"replayed in: {one.kind}", one.seconds, "s") for one in done),
    ]


_COLUMNS = (
    "kind",
    "detected by",
    "detected after",
    "gate open after",
    "replayed in",
    "came back",
    "wrong rows",
    "missed",
    "what the engineer types",
    "what is said meanwhile",
)
_HEAD = """# Every kind of restore

Printed by `python -m bench restores --page docs/restores.md`, on real servers. Why it is detected so:
[concepts](concepts.md); what to type: [restoring](restoring.md); what looks like a restore and is
none: [operations](operations.md).

Looks are counted from the restore's last write (0: before it, while it was going on); one is made each
`LETHE_JOURNAL_INTERVAL`, 10 s by default. *Replayed in* is from the look that begins to erase again to the
open gate, with some fifty people in the store. *Wrong* are rows of others that were touched, *missed* erased
people who stand in the store when its gate opens, as read past Lethe. What is said stands in the
RestoreEvent, and in the DataStore's `Ready`.

**A few rows need no restore.** Rows of at most 100 erased people that are put back into a table which
stayed ("one table's rows") look like a stale session that writes them back: no RestoreEvent, and the gate
stays open. The next look erases again whom it reads, the newest 1,000 erasures and 1,000 others at random;
the rest stand there, and are served, until the sweep (`LETHE_SWEEP_INTERVAL`, an hour). It is told by the
event `WrittenBackAgain`, in the DataStore's `Ready`, and by the alert
[LetheWrittenBack](runbooks/LetheWrittenBack.md). Whoever types `kubectl lethe restore begin` before and
`end` after keeps the gate closed until everybody was read back, however few they are.

"""


def page(done: Sequence[Rehearsed]) -> str:
    """Return docs/restores.md."""
    rows = [_COLUMNS, ["---"] * len(_COLUMNS), *map(row, done)]
    return _HEAD + "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def row(one: Rehearsed) -> list[str]:
    """Return the cells of one kind."""
    return [
        one.kind.name,
        one.detected_by,
        _looks(one.detected_after),
        _looks(one.opened_after),
        f"{one.seconds:.1f} s",
        str(one.erased_again),
        str(len(one.wrong)),
        str(len(one.missed)),
        one.kind.typed,
        "; ".join(one.said),
    ]


def _looks(number: int) -> str:
    return f"{number} look" if number == 1 else f"{number} looks"
