"""The one place that picks adapters, and puts the operator together."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import kopf

from lethe.adapters.cluster.api import KubernetesCluster, connect
from lethe.adapters.cluster.lease import Candidate
from lethe.adapters.cluster.others import KubernetesOthers
from lethe.adapters.cluster.schemas import shortfall
from lethe.adapters.drills.command import Commands
from lethe.adapters.hosts import Resolver
from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.database import look_into
from lethe.adapters.ledger.ledger import open_ledger
from lethe.adapters.notices.opening import message_id_domain, open_channel, open_renderer
from lethe.connectors import BackendConnector, DrillConnector, StoreConnector
from lethe.controllers.operator import Operator
from lethe.controllers.runtime.metrics import Metrics
from lethe.controllers.runtime.probes import serve_probes
from lethe.handlers.shell import watch
from lethe.ports.backups import Backend
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable
from lethe.ports.ledger import Fenced, Ledger
from lethe.ports.notices import Channel, NoticeRenderer
from lethe.ports.stores import Store
from lethe.settings import NO_LEASE, InvalidSetting, Settings
from lethe.workflows.legal.notify import Mailer

log = logging.getLogger("lethe")

POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
OPENING_SECONDS = 300
FENCED = 3
"""The exit code of an operator whose work somebody else does by now."""

LOOK_SECONDS = 1.0
PATIENCE = 4
"""How often the CRDs are found wanting before it is said."""


def open_mailer(
    settings: Settings, renderer: NoticeRenderer, wrap: Callable[[Channel], Channel]
) -> Mailer | None:
    """Return how letters leave; `None`: no channel is set. Raises `ChannelError`."""
    channel = open_channel(
        smtp_url=settings.smtp_url,
        mail_from=settings.mail_from,
        smtp_ca_file=settings.smtp_ca_file,
        webhook_url=settings.webhook_url,
        webhook_secret=settings.webhook_secret,
        webhook_ca_file=settings.webhook_ca_file,
        resolver=Resolver(settings.store_hosts),
    )
    domain = message_id_domain(
        smtp_url=settings.smtp_url, mail_from=settings.mail_from, webhook_url=settings.webhook_url
    )
    if channel is None or domain is None:
        return None
    return Mailer(renderer, wrap(channel), "smtp" if settings.smtp_url else "webhook", domain)


def login(kubeconfig: str | None, settings: kopf.OperatorSettings) -> kopf.ConnectionInfo:
    """Return how Kopf reaches the API server: as the pod's ServiceAccount, else by kubeconfig."""
    if kubeconfig:
        os.environ["KUBECONFIG"] = kubeconfig
    found = kopf.login_with_service_account(settings=settings) or kopf.login_with_kubeconfig(
        settings=settings
    )
    if found is None:
        raise kopf.LoginError("no API server to log in to: run in a pod, or set KUBECONFIG")
    return found


async def run_operator(
    settings: Settings,
    *,
    wrap_ledger: Callable[[Ledger], Ledger] = lambda ledger: ledger,
    wrap_cluster: Callable[[Cluster], Cluster] = lambda cluster: cluster,
    wrap_store: Callable[[Store], Store] = lambda store: store,
    wrap_backend: Callable[[Backend], Backend] = lambda backend: backend,
    wrap_channel: Callable[[Channel], Channel] = lambda channel: channel,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> int:
    """Run until SIGTERM or SIGINT; return the exit code.

    The `wrap_*` let tests stand between core and adapters, and `clock` lets them set the time.

    Raises what adapters say about a ledger, keys or an API server that can't be used.
    """
    stop = asyncio.Event()
    _stop_at_signals(stop)
    renderer = open_renderer(settings.templates_dir)
    mailer = open_mailer(settings, renderer, wrap_channel)
    keyring = FileKeyring(Path(settings.keys_dir))
    kubernetes: KubernetesCluster = await connect(settings.kubeconfig)
    watching: KubernetesCluster = await connect(settings.kubeconfig, connections=0)  # each watch keeps one
    candidate = candidacy(settings, kubernetes)
    if candidate is not None:  # who only finds out when it is needed stands by for nothing
        await asyncio.to_thread(look_into, settings.ledger_url)
    metrics, vitals = Metrics(), _Vitals()

    async def lead() -> int:
        # Opening a ledger may migrate it: nobody does so who is not the leader.
        vitals.opening_since = time.monotonic()
        ledger = wrap_ledger(await asyncio.to_thread(open_ledger, settings.ledger_url, keyring))
        vitals.opening_since = None
        resolver = Resolver(settings.store_hosts)
        connect_store = StoreConnector(ledger, keyring, wrap_store, resolver)
        try:
            operator = Operator(
                ledger=ledger,
                keyring=keyring,
                cluster=wrap_cluster(kubernetes),
                others=KubernetesOthers(watching),
                early_warning=settings.early_warning,
                connect=connect_store,
                metrics=metrics,
                namespaces=settings.namespaces,
                deadline=settings.erasure_deadline,
                journal_interval=settings.journal_interval.total_seconds(),
                sweep_interval=settings.sweep_interval.total_seconds(),
                connect_backend=BackendConnector(
                    settings.backup_directories, wrap_backend, Resolver(settings.store_hosts)
                ),
                connect_drill=DrillConnector(connect_store, Commands(settings.drill_commands_dir), resolver),
                retention=settings.retention,
                scan_interval=settings.scan_interval.total_seconds(),
                clock_skew=settings.clock_skew,
                renderer=renderer,
                mailer=mailer,
                notices_per_hour=settings.notices_per_hour,
                clock=clock,
            )
            served = ", ".join(settings.namespaces) or "all namespaces"
            log.info("ledger %s, serving %s", ledger.ledger_id[:8], served)
            await _await_kinds(kubernetes, stop)
            vitals.operator = operator  # who waits for CRDs does not hang
            return 0 if stop.is_set() else await _run_together(operator, settings, stop, vitals.watching)
        finally:
            await asyncio.to_thread(ledger.close)

    probes = await serve_probes(
        metrics,
        host=settings.metrics_host,
        port=settings.metrics_port,
        heartbeat_age=lambda: vitals.heartbeat_age,
        ready=lambda: vitals.serves and not stop.is_set(),
        standing_by=lambda: candidate is not None and candidate.stands_by,
    )
    try:
        return await (
            lead() if candidate is None else candidate.in_turn(lead, stop, FENCED, quiet=vitals.is_quiet)
        )
    finally:
        await probes.cleanup()
        await watching.close()
        await kubernetes.close()


class _Vitals:
    """What the probes ask of an operator, which is there only once this operator leads."""

    def __init__(self) -> None:
        self.operator: Operator | None = None
        self.watching = asyncio.Event()
        self.opening_since: float | None = None

    @property
    def heartbeat_age(self) -> float:
        if self.opening_since is not None:  # a large ledger is no reason to be killed, one that hangs is
            return max(0.0, time.monotonic() - self.opening_since - OPENING_SECONDS)
        return self.operator.heartbeat_age if self.operator is not None else 0.0

    def is_quiet(self) -> bool:
        """Tell whether nothing goes on that the operator had begun."""
        return self.operator is None or self.operator.quiet

    @property
    def serves(self) -> bool:
        return self.operator is not None and self.operator.started.is_set() and self.watching.is_set()


def candidacy(settings: Settings, cluster: KubernetesCluster) -> Candidate | None:
    """Return who asks for the Lease that `LETHE_LEASE` names; `None`: nobody stands by.

    In a pod it is `lethe` in the pod's namespace, unless said otherwise; elsewhere there is none unless
    said. Raises `InvalidSetting` where the namespace is neither said nor known.
    """
    namespace, _, name = (settings.lease or "").rpartition("/")
    in_pod = POD_NAMESPACE.exists()
    if settings.lease == NO_LEASE or not (name or in_pod):
        return None
    if not namespace and not in_pod:
        raise InvalidSetting(f"LETHE_LEASE needs a namespace outside of a pod, as in lethe/{name}")
    # A container that is started anew in its pod is the same candidate: it need not wait for itself.
    identity = socket.gethostname() if in_pod else f"{socket.gethostname()}-{secrets.token_hex(4)}"
    return Candidate(cluster, namespace or POD_NAMESPACE.read_text().strip(), name or "lethe", identity)


async def _await_kinds(kubernetes: KubernetesCluster, stop: asyncio.Event) -> None:
    """Wait until the API server knows this version's kinds: older ones drop what is written."""
    before, times = "", 0
    while not stop.is_set():
        try:
            lacking = await asyncio.to_thread(shortfall, await kubernetes.served_schema())
        except ClusterRefused as refused:
            # Where even this is hidden, nothing can be told of the CRDs; what is wrong with them shows later.
            log.info("the CRDs are taken for this version's: %s", refused)
            return
        except ClusterUnavailable as away:
            lacking = f"start waits: {away}"
        if lacking is None:
            return
        before, times = lacking, times + 1 if lacking == before else 1
        # CRDs that were applied just now are in this document a second or two later.
        if times == PATIENCE:
            log.error("%s", lacking)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LOOK_SECONDS)


def _stop_at_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)


async def _run_together(
    operator: Operator, settings: Settings, stop: asyncio.Event, ready: asyncio.Event
) -> int:
    keeping = asyncio.create_task(operator.run(stop))
    started = asyncio.create_task(operator.started.wait())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([keeping, started, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if stop.is_set() and not operator.started.is_set():
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        return 0
    watching = asyncio.create_task(
        watch(
            operator,
            login=lambda kopf_settings: login(settings.kubeconfig, kopf_settings),
            namespaces=settings.namespaces,
            stop=stop,
            ready=ready,
        )
    )
    begun = asyncio.create_task(ready.wait())
    await asyncio.wait([keeping, watching, begun], return_when=asyncio.FIRST_COMPLETED)
    # Kopf has put its own handlers in place by now, and would wait for what it knows nothing of.
    _stop_at_signals(stop)
    await asyncio.wait([keeping, watching], return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    begun.cancel()
    results = await asyncio.gather(keeping, watching, return_exceptions=True)
    started.cancel()
    for result in results:
        if isinstance(result, Fenced):
            log.error("another operator has taken over this ledger; this one ends")
            return FENCED
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result
    return 0
