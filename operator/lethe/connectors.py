"""Making ports to stores and backends from their manifests and Secrets."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from lethe.adapters.drills.command import Commands
from lethe.adapters.hosts import ANYWHERE, Resolver
from lethe.adapters.stores.sql.scratch import SqlScratchServer
from lethe.adapters.stores.sql.store import SqlStore
from lethe.adapters.stores.sql.url import DatabaseUrl
from lethe.api.translation import store_description, subject_mapping
from lethe.api.v1alpha1.backupsource import BackupSource
from lethe.api.v1alpha1.datastore import DataStore
from lethe.api.v1alpha1.references import SecretRef
from lethe.api.v1alpha1.restoredrill import RestoreDrill
from lethe.domain.drills import DATABASE_PREFIX
from lethe.domain.snapshot_names import InvalidName, NamePattern
from lethe.ports.backups import Backend, BackendMisconfigured
from lethe.ports.cluster import SecretContent
from lethe.ports.drills import Restorer, ScratchServer
from lethe.ports.keys import Keyring
from lethe.ports.ledger import Ledger
from lethe.ports.stores import Store
from lethe.workflows.store_session import StoreSession, fingerprints_of

if TYPE_CHECKING:
    from lethe.adapters.backups.directory import DirectoryBackend
    from lethe.adapters.backups.s3_bucket import WebIdentity


class StoreConnector:
    """Makes the port to a store from its manifest and Secret."""

    def __init__(
        self,
        ledger: Ledger,
        keyring: Keyring,
        wrap: Callable[[Store], Store],
        resolver: Resolver = ANYWHERE,
    ) -> None:
        self._ledger, self._keyring, self._wrap, self._resolver = ledger, keyring, wrap, resolver

    def secret_name(self, store: DataStore) -> str | None:
        """Return the name of the Secret that the manifest names."""
        spec = store.spec
        if spec.sql is not None:
            return spec.sql.url_secret_ref.name
        if spec.tryton is not None:
            return spec.tryton.credentials_secret_ref.name
        return None

    def __call__(self, store: DataStore, secret: SecretContent | None) -> StoreSession:
        """Return the store under guard. Raises `ValueError` with what is wrong and what to do."""
        description = store_description(store)
        port = self._wrap(self._port(store, description.name, secret))
        return StoreSession(description, port, fingerprints_of(self._keyring, description.name))

    def _port(self, store: DataStore, name: str, secret: SecretContent | None) -> Store:
        spec = store.spec
        if spec.sql is not None:
            if spec.sql.subjects is None:
                raise ValueError("spec.sql.subjects is missing; map the table that holds the persons")
            secret_name, key = spec.sql.url_secret_ref.name, spec.sql.url_secret_ref.key
            try:
                url = _text(secret, secret_name, key)
                if DatabaseUrl.parse(url).settings.get("dbname", "").startswith(DATABASE_PREFIX):
                    raise ValueError(f"databases whose names begin with {DATABASE_PREFIX} are scratch ones")
                return self._sql(store, name, url, allow_plaintext=bool(spec.sql.allow_plaintext))
            except ValueError as unusable:
                raise ValueError(
                    f"the URL in key {key} of Secret {secret_name} can't be used: {unusable}"
                ) from None
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
                resolver=self._resolver,
                allow_plaintext=bool(spec.tryton.allow_plaintext),
            )
        raise ValueError(
            "this version of Lethe speaks sql and tryton only; remove this DataStore, or upgrade"
        )

    def session_of_copy(self, store: DataStore, url: str, *, allow_plaintext: bool) -> StoreSession:
        """Return the session of an SQL store, with the port to a copy of it. Raises `ValueError`."""
        description = store_description(store)
        port = self._wrap(self._sql(store, description.name, url, allow_plaintext=allow_plaintext))
        return StoreSession(description, port, fingerprints_of(self._keyring, description.name))

    def _sql(self, store: DataStore, name: str, url: str, *, allow_plaintext: bool) -> SqlStore:
        sql = store.spec.sql
        if sql is None or sql.subjects is None:
            raise ValueError(
                "only a store in SQL whose persons are mapped can be restored into a scratch database"
            )
        return SqlStore(
            url,
            subject_mapping(sql.subjects),
            ledger_id=self._ledger.ledger_id,
            store=name,
            keyring=self._keyring,
            max_records=sql.max_records,
            primary=store.spec.role.value == "Primary",
            resolver=self._resolver,
            allow_plaintext=allow_plaintext,
            journal_schema=sql.journal_schema,
        )


class DrillConnector:
    """Makes what a drill needs from its manifest and the Secret that it names."""

    def __init__(self, stores: StoreConnector, commands: Commands, resolver: Resolver = ANYWHERE) -> None:
        self._stores, self._commands, self._resolver = stores, commands, resolver

    def scratch(self, drill: RestoreDrill, secret: SecretContent | None) -> ScratchServer:
        """Return the scratch server. Raises `ValueError` with what is wrong and what to do."""
        named = drill.spec.scratch.url_secret_ref
        plaintext = bool(drill.spec.scratch.allow_plaintext)
        try:
            url = _text(secret, named.name, named.key)
            return SqlScratchServer(url, self._resolver, allow_plaintext=plaintext)
        except ValueError as unusable:
            raise ValueError(
                f"the URL in key {named.key} of Secret {named.name} can't be used: {unusable}"
            ) from None

    def command(self, name: str) -> Restorer:
        """Return what restores by a command."""
        return partial(self._commands.restore, name)

    def session(self, store: DataStore, drill: RestoreDrill, url: str) -> StoreSession:
        """Return the session of a store with the port to its copy in the scratch database of a URL."""
        plaintext = bool(drill.spec.scratch.allow_plaintext)
        return self._stores.session_of_copy(store, url, allow_plaintext=plaintext)


class BackendConnector:
    """Makes the port to where snapshots lie, from a BackupSource's manifest and Secret."""

    def __init__(
        self,
        directories: Sequence[Path],
        wrap: Callable[[Backend], Backend],
        resolver: Resolver = ANYWHERE,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._directories, self._wrap, self._resolver = directories, wrap, resolver
        self._environment = environment
        self._authorities = _Authorities()
        self._folders = _Folders()

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

            whose = source.metadata.namespace or "", frozenset(spec.stores)
            siblings = partial(self._folders.of, *whose)
            folder = DirectoryBackend(spec.directory.path, spec.directory.name, self._directories, siblings)
            self._folders.add(folder, *whose)
            return folder
        if spec.s3 is not None:
            from lethe.adapters.backups.s3 import S3Backend  # noqa: PLC0415

            kind: type[S3Backend] = S3Backend
            pattern = None
            if "{" not in spec.s3.name:
                if spec.longest_duration is None:
                    raise BackendMisconfigured(
                        "spec.s3.name has no {takenAt:FORMAT}, so each version of a key is a snapshot, as of "
                        "when it was written",
                        "say in spec.longestDuration how long a backup takes, or correct spec.s3.name",
                    )
                from lethe.adapters.backups.s3_versions import S3Versions  # noqa: PLC0415

                kind = S3Versions
            else:
                try:
                    pattern = NamePattern.parse(spec.s3.name)
                except InvalidName as invalid:
                    raise BackendMisconfigured(f"spec.s3.name: {invalid}") from None
            access, key, token, authorities, identity = self._s3_credentials(
                spec.s3.credentials_secret_ref, secret
            )
            return kind(
                spec.s3.endpoint,
                spec.s3.region,
                spec.s3.bucket,
                spec.s3.prefix or "",
                pattern,
                access,
                key,
                token,
                authorities,
                self._resolver,
                allow_plaintext=bool(spec.s3.allow_plaintext),
                identity=identity,
                names=spec.s3.name,
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
                resolver=self._resolver,
                allow_plaintext=bool(spec.restic.allow_plaintext),
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

    def _s3_credentials(
        self, reference: SecretRef | None, secret: SecretContent | None
    ) -> tuple[str | None, str | None, str | None, str | None, WebIdentity | None]:
        """Return access key, secret key, session token, file of authorities; or the pod's own identity."""
        if reference is not None:
            token = secret is not None and "AWS_SESSION_TOKEN" in secret.content
            return (
                _text(secret, reference.name, "AWS_ACCESS_KEY_ID"),
                _text(secret, reference.name, "AWS_SECRET_ACCESS_KEY"),
                _text(secret, reference.name, "AWS_SESSION_TOKEN") if token else None,
                self._authorities.file_of(secret, reference.name),
                None,
            )
        from lethe.adapters.backups.s3_bucket import WebIdentity  # noqa: PLC0415

        role, token_file = map(self._environment.get, ("AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"))
        if not role or not token_file:
            raise BackendMisconfigured(
                "spec.s3 names no credentialsSecretRef, and the operator's pod has no workload identity "
                "(AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE)",
                "name a Secret, or give the operator's service account a role",
            )
        endpoint = self._environment.get("AWS_ENDPOINT_URL_STS") or None
        return None, None, None, None, WebIdentity(role, token_file, endpoint)


class _Folders:
    """The directories of sources that there are, so that one knows what lies in another."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[DirectoryBackend, tuple[str, frozenset[str]]] = WeakKeyDictionary()
        self._lock = Lock()

    def add(self, folder: DirectoryBackend, namespace: str, stores: frozenset[str]) -> None:
        """Note a folder whose snapshots hold these stores."""
        with self._lock:
            self._known[folder] = namespace, stores

    def of(self, namespace: str, stores: frozenset[str]) -> list[DirectoryBackend]:
        """Return the folders of a namespace whose snapshots hold all of these stores."""
        with self._lock:
            known = list(self._known.items())
        return [folder for folder, (other, held) in known if other == namespace and stores <= held]


class _Authorities:
    """Files with the certificate authorities that Secrets hold as `ca.crt`, because TLS takes no less.

    Each is written once, however often its Secret is read, and all are removed with the process.
    """

    def __init__(self) -> None:
        self._folder: TemporaryDirectory[str] | None = None

    def file_of(self, secret: SecretContent | None, name: str) -> str | None:
        """Return the file of a Secret's authority; `None`: it holds none. Raises `ValueError`."""
        if secret is None or "ca.crt" not in secret.content:
            return None
        content = _text(secret, name, "ca.crt")
        _require_certificates(content, name)
        try:
            if self._folder is None:
                self._folder = TemporaryDirectory(prefix="lethe-ca-", ignore_cleanup_errors=True)
            file = Path(self._folder.name) / f"{sha256(content.encode()).hexdigest()}.crt"
            if not file.exists():
                written = file.with_suffix(f".{token_hex(8)}")
                written.write_text(content)
                written.rename(file)
        except OSError as error:
            raise ValueError(
                f"ca.crt of Secret {name} can't be written to a file ({error.strerror}); make room in /tmp"
            ) from None
        return str(file)


def _require_certificates(content: str, name: str) -> None:
    plain = content.encode("ascii", "ignore").decode()  # a bundle names its authorities in comments
    try:
        ssl.create_default_context(cadata=plain)
    except (ssl.SSLError, ValueError):  # ValueError: nothing in it begins as a certificate does
        content = ""
    if not content:
        raise ValueError(f"ca.crt of Secret {name} holds no certificate in PEM; correct it")


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
