"""The one place that picks adapters, and puts the operator together."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile

import kopf

from lethe.adapters.cluster.api import KubernetesCluster, connect
from lethe.adapters.cluster.lease import Candidate
from lethe.adapters.cluster.schemas import shortfall
from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import open_ledger
from lethe.adapters.notices.opening import message_id_domain, open_channel, open_writer
from lethe.adapters.stores.sql.store import SqlStore
from lethe.api.translation import store_description, subject_mapping
from lethe.api.v1alpha1.backupsource import BackupSource
from lethe.api.v1alpha1.datastore import DataStore
from lethe.domain.snapshot_names import InvalidName, NamePattern
from lethe.engine.engine import Engine
from lethe.engine.metrics import Metrics
from lethe.engine.probes import serve_probes
from lethe.handlers.shell import watch
from lethe.ports.backups import Backend, BackendMisconfigured
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable, SecretContent
from lethe.ports.keys import Keyring
from lethe.ports.ledger import Fenced, Ledger
from lethe.ports.notices import Channel, Writer
from lethe.ports.stores import Store
from lethe.settings import NO_LEASE, InvalidSetting, Settings
from lethe.workflows.guarded import GuardedStore, fingerprints_of
from lethe.workflows.notifying import Post

log = logging.getLogger("lethe")

POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
FENCED = 3
"""The exit code of an operator whose work somebody else does by now."""

LOOK_SECONDS = 1.0
PATIENCE = 4
"""How often the CRDs are found wanting before it is said."""


class StoreConnector:
    """Makes the port to a store from its manifest and Secret."""

    def __init__(self, ledger: Ledger, keyring: Keyring, wrap: Callable[[Store], Store]) -> None:
        self._ledger, self._keyring, self._wrap = ledger, keyring, wrap

    def secret_name(self, store: DataStore) -> str | None:
        """Return the name of the Secret that the manifest names."""
        spec = store.spec
        if spec.sql is not None:
            return spec.sql.url_secret_ref.name
        if spec.tryton is not None:
            return spec.tryton.credentials_secret_ref.name
        return None

    def __call__(self, store: DataStore, secret: SecretContent | None) -> GuardedStore:
        """Return the store under guard. Raises `ValueError` with what is wrong and what to do."""
        description = store_description(store)
        port = self._wrap(self._port(store, description.name, secret))
        return GuardedStore(description, port, fingerprints_of(self._keyring, description.name))

    def _port(self, store: DataStore, name: str, secret: SecretContent | None) -> Store:
        spec = store.spec
        primary = spec.role.value == "Primary"
        if spec.sql is not None:
            if spec.sql.subjects is None:
                raise ValueError("spec.sql.subjects is missing; map the table that holds the persons")
            url = _text(secret, spec.sql.url_secret_ref.name, spec.sql.url_secret_ref.key)
            return SqlStore(
                url,
                subject_mapping(spec.sql.subjects),
                ledger_id=self._ledger.ledger_id,
                store=name,
                keyring=self._keyring,
                max_records=spec.sql.max_records,
                primary=primary,
            )
        if spec.tryton is not None:
            from lethe.adapters.stores.tryton.store import TrytonStore  # noqa: PLC0415 - only who has a Tryton pays for it

            named = spec.tryton.credentials_secret_ref.name
            return TrytonStore(
                spec.tryton.url,
                spec.tryton.database,
                _text(secret, named, "username"),
                _text(secret, named, "password"),
                store=name,
                keyring=self._keyring,
                canary=spec.tryton.canary,
                max_records=spec.tryton.max_records,
            )
        raise ValueError(
            "this version of Lethe speaks sql and tryton only; remove this DataStore, or upgrade"
        )


class BackendConnector:
    """Makes the port to where snapshots lie, from a BackupSource's manifest and Secret."""

    def __init__(self, directories: Sequence[Path], wrap: Callable[[Backend], Backend]) -> None:
        self._directories, self._wrap = directories, wrap

    def secret_name(self, source: BackupSource) -> str | None:
        """Return the name of the Secret that the manifest names."""
        named = source.spec.s3 or source.spec.restic or source.spec.plugin
        reference = named.credentials_secret_ref if named is not None else None
        return reference.name if reference is not None else None

    def __call__(self, source: BackupSource, secret: SecretContent | None) -> Backend:
        """Return the backend. Raises `ValueError` and `BackendError` with what is wrong and what to do."""
        return self._wrap(self._port(source, secret))

    def _port(self, source: BackupSource, secret: SecretContent | None) -> Backend:
        # Each is imported by who has one: the S3 library alone takes tens of megabytes.
        spec = source.spec
        if spec.directory is not None:
            from lethe.adapters.backups.directory import DirectoryBackend  # noqa: PLC0415

            return DirectoryBackend(spec.directory.path, spec.directory.name, self._directories)
        if spec.s3 is not None:
            from lethe.adapters.backups.s3 import S3Backend  # noqa: PLC0415

            named = spec.s3.credentials_secret_ref.name
            try:
                pattern = NamePattern.parse(spec.s3.name)
            except InvalidName as invalid:
                raise BackendMisconfigured(f"spec.s3.name: {invalid}") from None
            return S3Backend(
                spec.s3.endpoint,
                spec.s3.region,
                spec.s3.bucket,
                spec.s3.prefix or "",
                pattern,
                _text(secret, named, "AWS_ACCESS_KEY_ID"),
                _text(secret, named, "AWS_SECRET_ACCESS_KEY"),
                session_token=_text(secret, named, "AWS_SESSION_TOKEN")
                if secret is not None and "AWS_SESSION_TOKEN" in secret.content
                else None,
                ca_file=_authority(secret),
            )
        if spec.restic is not None:
            from lethe.adapters.backups.restic import ResticBackend  # noqa: PLC0415

            named = spec.restic.credentials_secret_ref.name
            _text(secret, named, "RESTIC_PASSWORD")
            return ResticBackend(
                spec.restic.repository,
                _texts(secret, named),
                spec.restic.host,
                spec.restic.paths,
                self._directories,
            )
        if spec.plugin is not None:
            from lethe.adapters.backups.plugin import load_backend  # noqa: PLC0415

            reference = spec.plugin.credentials_secret_ref
            return load_backend(
                spec.plugin.name,
                dict(spec.plugin.config or {}),
                _texts(secret, reference.name if reference else ""),
            )
        raise BackendMisconfigured(
            "this version of Lethe speaks directory, s3, restic and plugin only",
            "correct this BackupSource, or upgrade",
        )


def _authority(secret: SecretContent | None) -> str | None:
    """Return a file with the certificate authority that a Secret holds as `ca.crt`; TLS takes no less."""
    if secret is None or "ca.crt" not in secret.content:
        return None
    with NamedTemporaryFile("wb", prefix="lethe-ca-", suffix=".crt", delete=False) as file:
        file.write(secret.content["ca.crt"])
    return file.name


def _texts(secret: SecretContent | None, name: str) -> dict[str, str]:
    return {key: _text(secret, name, key) for key in (secret.content if secret is not None else ())}


def _text(secret: SecretContent | None, name: str, key: str) -> str:
    if secret is None or key not in secret.content:
        raise ValueError(f"Secret {name} has no key {key}; add it")
    try:
        text = secret.content[key].decode().strip()
    except UnicodeDecodeError:
        text = ""
    if not text:
        raise ValueError(f"key {key} of Secret {name} is empty or not text; correct it")
    return text


def open_post(settings: Settings, writer: Writer, wrap: Callable[[Channel], Channel]) -> Post | None:
    """Return how letters leave; `None`: no channel is set. Raises `ChannelError`."""
    channel = open_channel(
        smtp_url=settings.smtp_url,
        mail_from=settings.mail_from,
        smtp_ca_file=settings.smtp_ca_file,
        webhook_url=settings.webhook_url,
        webhook_secret=settings.webhook_secret,
        webhook_ca_file=settings.webhook_ca_file,
    )
    domain = message_id_domain(
        smtp_url=settings.smtp_url, mail_from=settings.mail_from, webhook_url=settings.webhook_url
    )
    if channel is None or domain is None:
        return None
    return Post(writer, wrap(channel), "smtp" if settings.smtp_url else "webhook", domain)


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
    writer = open_writer(settings.templates_dir)
    post = open_post(settings, writer, wrap_channel)
    keyring = FileKeyring(Path(settings.keys_dir))
    kubernetes: KubernetesCluster = await connect(settings.kubeconfig)
    candidate = candidacy(settings, kubernetes)
    metrics, vitals = Metrics(), _Vitals()

    async def lead() -> int:
        # Opening a ledger may migrate it: nobody does so who is not the leader.
        ledger = wrap_ledger(await asyncio.to_thread(open_ledger, settings.ledger_url, keyring))
        try:
            engine = Engine(
                ledger=ledger,
                keyring=keyring,
                cluster=wrap_cluster(kubernetes),
                connect=StoreConnector(ledger, keyring, wrap_store),
                metrics=metrics,
                namespaces=settings.namespaces,
                deadline=settings.erasure_deadline,
                journal_interval=settings.journal_interval.total_seconds(),
                sweep_interval=settings.sweep_interval.total_seconds(),
                connect_backend=BackendConnector(settings.backup_directories, wrap_backend),
                retention=settings.retention,
                scan_interval=settings.scan_interval.total_seconds(),
                writer=writer,
                post=post,
                notices_per_hour=settings.notices_per_hour,
                clock=clock,
            )
            served = ", ".join(settings.namespaces) or "all namespaces"
            log.info("ledger %s, serving %s", ledger.ledger_id[:8], served)
            await _await_kinds(kubernetes, stop)
            vitals.engine = engine  # who waits for CRDs does not hang
            return 0 if stop.is_set() else await _run_together(engine, settings, stop, vitals.watching)
        finally:
            await asyncio.to_thread(ledger.close)

    probes = await serve_probes(
        metrics,
        host=settings.metrics_host,
        port=settings.metrics_port,
        heartbeat_age=lambda: vitals.heartbeat_age,
        ready=lambda: vitals.serves and not stop.is_set(),
        standing_by=lambda: candidate is not None and not candidate.leads.is_set(),
    )
    try:
        return await (lead() if candidate is None else candidate.in_turn(lead, stop, FENCED))
    finally:
        await probes.cleanup()
        await kubernetes.close()


class _Vitals:
    """What the probes ask of an engine, which is there only once this operator leads."""

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.watching = asyncio.Event()

    @property
    def heartbeat_age(self) -> float:
        return self.engine.heartbeat_age if self.engine is not None else 0.0

    @property
    def serves(self) -> bool:
        return self.engine is not None and self.engine.started.is_set() and self.watching.is_set()


def candidacy(settings: Settings, cluster: KubernetesCluster) -> Candidate | None:
    """Return who asks for the Lease that `LETHE_LEASE` names; `None`: nobody stands by.

    In a pod it is `lethe` in the pod's namespace, unless said otherwise; elsewhere there is none unless
    said. Raises `InvalidSetting` where the namespace is neither said nor known.
    """
    namespace, _, name = (settings.lease or "").rpartition("/")
    in_pod = POD_NAMESPACE.exists()
    if name == NO_LEASE or not (name or in_pod):
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


async def _run_together(engine: Engine, settings: Settings, stop: asyncio.Event, ready: asyncio.Event) -> int:
    keeping = asyncio.create_task(engine.run(stop))
    started = asyncio.create_task(engine.started.wait())
    await asyncio.wait([keeping, started], return_when=asyncio.FIRST_COMPLETED)
    watching = asyncio.create_task(
        watch(
            engine,
            login=lambda kopf_settings: login(settings.kubeconfig, kopf_settings),
            namespaces=settings.namespaces,
            stop=stop,
            ready=ready,
        )
    )
    begun = asyncio.create_task(ready.wait())
    await asyncio.wait([keeping, watching, begun], return_when=asyncio.FIRST_COMPLETED)
    # Kopf has put its own handlers in place by now, and would wait for the engine, which it knows nothing of.
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
