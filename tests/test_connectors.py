"""From a manifest and any content of its Secret comes a port that has looked nowhere, or it is told why."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devtools.company import SUBJECTS
from devtools.servers.certificates import write_certificates
from lethe.api.parse import parse
from lethe.api.v1alpha1.backupsource import BackupSource
from lethe.api.v1alpha1.datastore import DataStore
from lethe.connectors import BackendConnector, StoreConnector
from lethe.ports.backups import Backend, BackendError, BackendMisconfigured, DeletionResult, Pin
from lethe.ports.cluster import SecretContent
from lethe.ports.ledger import Ledger
from lethe.workflows.store_session import StoreSession
from tests.adapters.stores.sql.conftest import HmacKeyring

PASSWORD = "hunter2"
ISSUE = {
    f"postgresql://u:{PASSWORD}@/db?host=h1,h2&port=abc": "a port is not a number from 1 to 65535",
    f"postgresql://u:{PASSWORD}@/db?host=h1,h2&port=1,2,3": "port= names neither one port nor one for each",
    f"postgresql://u:{PASSWORD}@h/db?plugin=x": "parameter plugin is not allowed; remove it",
}


@pytest.fixture(autouse=True)
def nobody_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where anything is looked up or connected to."""

    def reached(*_: object) -> None:
        raise AssertionError("nothing may be reached yet")

    monkeypatch.setattr(socket, "getaddrinfo", reached)
    monkeypatch.setattr(socket.socket, "connect", reached)


def secret(content: Mapping[str, bytes]) -> SecretContent:
    return SecretContent("Opaque", content, "uid", "1")


def store_of(spec: Mapping[str, Any], content: Mapping[str, bytes]) -> StoreSession:
    connect = StoreConnector(cast("Ledger", SimpleNamespace(ledger_id="l")), HmacKeyring(), lambda port: port)
    body = {"role": "Primary", "owner": "Self", "backups": "None", **spec}
    return connect(parse(DataStore, manifest("DataStore", body)), secret(content))


def manifest(kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {"name": "site", "namespace": "company"}
    return {"apiVersion": "lethe.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


SQL = {"sql": {"urlSecretRef": {"name": "site-db", "key": "url"}, "subjects": SUBJECTS}}
TRYTON = {"tryton": {"url": "https://h", "database": "crm", "credentialsSecretRef": {"name": "site-crm"}}}
PATTERN = "{takenAt:%Y%m%d}.dump"
BACKENDS: dict[str, dict[str, Any]] = {
    "s3": {"bucket": "dumps", "name": PATTERN, "credentialsSecretRef": {"name": "site-s3"}},
    "restic": {"repository": "rest:https://h", "credentialsSecretRef": {"name": "site-restic"}},
    "plugin": {"name": "not-installed", "credentialsSecretRef": {"name": "site-plugin"}},
    "directory": {"path": "/backups", "name": PATTERN},
}
KEYS = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "ca.crt"),
    "restic": ("RESTIC_PASSWORD", "AWS_ACCESS_KEY_ID", "PATH"),
    "plugin": ("token",),
    "directory": ("anything",),
}


@pytest.fixture
def backends() -> BackendConnector:
    return BackendConnector([Path("/backups")], lambda backend: backend)


def backend_of(backends: BackendConnector, kind: str, content: Mapping[str, bytes]) -> Backend:
    source = parse(BackupSource, manifest("BackupSource", {"stores": ["site"], kind: BACKENDS[kind]}))
    return backends(source, secret(content))


@pytest.mark.parametrize("url", ISSUE)
def test_a_mistyped_url_is_told_with_secret_key_and_remedy_and_without_the_password(url: str) -> None:
    with pytest.raises(ValueError, match="the URL in key url of Secret site-db can't be used: ") as refused:
        store_of(SQL, {"url": url.encode()})
    assert ISSUE[url] in str(refused.value)
    assert PASSWORD not in str(refused.value)


def test_hosts_in_the_query_with_one_port_for_all_make_a_store() -> None:
    assert store_of(SQL, {"url": b"postgresql://u:p@/db?host=h1,h2&port=5432\n"}).name == "company/site"


def test_an_authority_is_written_once_however_often_its_secret_is_read(
    backends: BackendConnector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    write_certificates(tmp_path)
    authority = "# Ünser Zertifikat\n".encode() + (tmp_path / "ca.crt").read_bytes()
    content = {"AWS_ACCESS_KEY_ID": b"a", "AWS_SECRET_ACCESS_KEY": b"b", "ca.crt": authority}
    for _ in range(3):
        backend_of(backends, "s3", content).close()
    assert len([file for file in (tmp_path / "tmp").rglob("*") if file.is_file()]) == 1


@pytest.mark.parametrize(
    "authority", [b"no certificate", b"-----BEGIN CERTIFICATE-----\nMII\n", b"\xff\xfe", b""]
)
def test_an_authority_that_is_none_is_told(backends: BackendConnector, authority: bytes) -> None:
    content = {"AWS_ACCESS_KEY_ID": b"a", "AWS_SECRET_ACCESS_KEY": b"b", "ca.crt": authority}
    with pytest.raises(ValueError, match=r"ca\.crt of Secret site-s3 .*; correct it"):
        backend_of(backends, "s3", content)


def test_an_authority_that_can_not_be_written_is_told(
    backends: BackendConnector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_certificates(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "not there"))
    authority = (tmp_path / "ca.crt").read_bytes()
    content = {"AWS_ACCESS_KEY_ID": b"a", "AWS_SECRET_ACCESS_KEY": b"b", "ca.crt": authority}
    with pytest.raises(ValueError, match=r"can't be written to a file .*; make room in /tmp"):
        backend_of(backends, "s3", content)


CONTENTS = st.binary(max_size=60) | st.text(max_size=60).map(str.encode)
URLS = CONTENTS.map(lambda some: b"postgresql://u:hunter2@h/db?" + some) | CONTENTS
whatever = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@whatever
@given(URLS)
def test_any_content_of_a_urls_secret_makes_a_store_or_is_told(url: bytes) -> None:
    made_or_told(partial(store_of, SQL, {"url": url}), "site-db")


@whatever
@given(CONTENTS, CONTENTS)
def test_any_credentials_for_tryton_make_a_store_or_are_told(username: bytes, password: bytes) -> None:
    made_or_told(partial(store_of, TRYTON, {"username": username, "password": password}), "site-crm")


@pytest.mark.parametrize("kind", BACKENDS)
@whatever
@given(st.data())
def test_any_content_of_a_backends_secret_makes_it_or_is_told(
    backends: BackendConnector, kind: str, data: st.DataObject
) -> None:
    given_keys = data.draw(st.sets(st.sampled_from(KEYS[kind])))
    content = {key: data.draw(CONTENTS) for key in sorted(given_keys)}
    made_or_told(partial(backend_of, backends, kind, content), "site-")


def made_or_told(make: partial[Any], named: str) -> None:
    """Require that something is made, or a printable error that names the Secret or the field."""
    told: Exception | None = None
    try:
        make()
    except (ValueError, BackendError) as refused:
        told = refused
    if told is not None:
        assert type(told) is ValueError or isinstance(told, BackendError)
        assert str(told).isprintable()
        assert named in str(told) or "spec." in str(told)
        assert PASSWORD not in str(told)


ENTRY_POINTS = "[lethe.backups]\nleaving = leaving_plugin:leave\n"


@pytest.fixture
def leaving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed plugin whose factory ends the process."""
    (tmp_path / "leaving_plugin.py").write_text("import sys\n\ndef leave(config, secret):\n    sys.exit(1)\n")
    metadata = tmp_path / "leaving-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: leaving\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("leaving")
def test_a_plugin_that_ends_the_process_ends_nothing(
    backends: BackendConnector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKENDS, "plugin", BACKENDS["plugin"] | {"name": "leaving"})
    with pytest.raises(BackendError, match="the plugin leaving failed to be set up"):
        backend_of(backends, "plugin", {"token": b"t"})


def test_versions_of_a_key_are_snapshots_only_where_their_length_is_said(backends: BackendConnector) -> None:
    content = {"AWS_ACCESS_KEY_ID": b"a", "AWS_SECRET_ACCESS_KEY": b"b"}
    spec = {"stores": ["site"], "s3": {**BACKENDS["s3"], "name": "site.dump"}}
    with pytest.raises(BackendMisconfigured, match=r"say in spec\.longestDuration how long a backup takes"):
        backends(parse(BackupSource, manifest("BackupSource", spec)), secret(content))
    said = parse(BackupSource, manifest("BackupSource", {**spec, "longestDuration": "2h"}))
    backends(said, secret(content)).close()


def test_s3_without_a_secret_takes_the_role_of_the_pod_or_says_what_is_missing() -> None:
    bare = {name: value for name, value in BACKENDS["s3"].items() if name != "credentialsSecretRef"}
    source = parse(BackupSource, manifest("BackupSource", {"stores": ["site"], "s3": bare}))
    role = {"AWS_ROLE_ARN": "arn:aws:iam::111122223333:role/lethe", "AWS_WEB_IDENTITY_TOKEN_FILE": "/token"}
    for missing in role:
        environment = {name: value for name, value in role.items() if name != missing}
        connect = BackendConnector([], lambda backend: backend, environment=environment)
        assert connect.secret_name(source) is None
        with pytest.raises(BackendMisconfigured, match="give the operator's service account a role"):
            connect(source, None)
    BackendConnector([], lambda backend: backend, environment=role)(source, None).close()


def test_hard_links_between_the_folders_of_a_store_die_name_by_name(tmp_path: Path) -> None:
    connect = BackendConnector([tmp_path], lambda backend: backend)
    ref = "20260101.dump"

    def folder(name: str, stores: list[str]) -> Backend:
        (tmp_path / name).mkdir()
        if name != "last":
            (tmp_path / name / ref).hardlink_to(tmp_path / "last" / ref)
        else:
            (tmp_path / name / ref).write_text("rows")
        spec = {"stores": stores, "directory": {"path": str(tmp_path / name), "name": PATTERN}}
        return connect(parse(BackupSource, manifest("BackupSource", spec)), None)

    def delete(backend: Backend) -> DeletionResult:
        pieces = next(one.pieces for one in backend.list().snapshots if one.ref == ref)
        return backend.delete([Pin(ref, pieces)])[ref].result

    last, daily = folder("last", ["site", "crm"]), folder("daily", ["site"])
    weekly = folder("weekly", ["site", "crm"])
    assert delete(last) is DeletionResult.FAILED, "daily is said to hold no crm"
    (tmp_path / "daily" / ref).unlink()
    assert delete(last) is DeletionResult.ACCEPTED
    assert (tmp_path / "weekly" / ref).read_text() == "rows"
    (tmp_path / "daily" / ref).hardlink_to(tmp_path / "weekly" / ref)
    weekly.close()
    assert delete(daily) is DeletionResult.FAILED, "nobody looks after weekly any more"
    (tmp_path / "daily" / ref).unlink()
    assert delete(weekly) is DeletionResult.ACCEPTED
