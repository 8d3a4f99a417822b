"""Whom each adapter lets itself be led to: what LETHE_STORE_HOSTS allows, looked at after the name is."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest

from devtools.company import SUBJECTS
from devtools.servers.children import outer_address
from lethe.adapters.hosts import Resolver
from lethe.adapters.notices.opening import open_renderer
from lethe.api.parse import parse
from lethe.api.v1alpha1.backupsource import BackupSource
from lethe.api.v1alpha1.datastore import DataStore
from lethe.bootstrap import open_mailer
from lethe.connectors import BackendConnector, StoreConnector
from lethe.domain.hosts import AllowedHosts
from lethe.ports.backups import BackendError
from lethe.ports.cluster import SecretContent
from lethe.ports.ledger import Ledger
from lethe.ports.notices import ChannelError
from lethe.ports.stores import StoreError
from lethe.settings import Settings
from tests.adapters.stores.sql.conftest import HmacKeyring
from tests.contracts.notices import letter

Ask = Callable[[], object]
FAILURES = (StoreError, BackendError, ChannelError)
REFUSED = "leads to an address that LETHE_STORE_HOSTS does not allow"
WITHOUT_TLS = "without TLS, credentials and what is asked could be read on the way"
UNKNOWN = "unknown.invalid"
NAMED = "named-by-a-stranger.example"
"""A name whose zone is a stranger's: it leads to this machine."""


class Listener:
    """A port of one address that counts who connects, and says nothing to them."""

    def __init__(self, address: str) -> None:
        self._socket = socket.create_server((address, 0))
        self.port = int(self._socket.getsockname()[1])
        self.visitors = 0
        self._thread = threading.Thread(target=self._count, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.create_connection(self._socket.getsockname()):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _count(self) -> None:
        while True:
            try:
                visitor, _ = self._socket.accept()
            except OSError:
                return
            self.visitors += 1
            visitor.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener("127.0.0.1") as listening:
        yield listening


@pytest.fixture
def beyond() -> Iterator[tuple[str, Listener]]:
    """An address of this machine by which others reach it, too."""
    address = outer_address()
    if address is None:
        pytest.skip("nobody else reaches this machine")
    with Listener(address) as listening:
        yield address, listening


@pytest.fixture(autouse=True)
def name_of_a_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def looked_up(host: Any, *rest: Any, **options: Any) -> Any:
        if host == UNKNOWN:
            raise socket.gaierror
        return real("127.0.0.1" if host == NAMED else host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)


def store(spec: dict[str, Any], content: dict[str, bytes], hosts: AllowedHosts) -> Ask:
    connect = StoreConnector(
        cast("Ledger", SimpleNamespace(ledger_id="l")), HmacKeyring(), lambda port: port, Resolver(hosts)
    )
    body = {"role": "Primary", "owner": "Self", **spec}
    session = connect(parse(DataStore, manifest("DataStore", body)), secret(content))
    return session.port.prove


def source(spec: dict[str, Any], content: dict[str, bytes], hosts: AllowedHosts) -> Ask:
    connect = BackendConnector([Path("/backups")], lambda backend: backend, Resolver(hosts))
    body = {"stores": ["site"], **spec}
    return connect(parse(BackupSource, manifest("BackupSource", body)), secret(content)).list


def channel(hosts: AllowedHosts, **settings: str) -> Ask:
    mailer = open_mailer(
        Settings(store_hosts=hosts, **cast("Any", settings)), open_renderer(None), lambda channel: channel
    )
    assert mailer is not None
    return lambda: mailer.channel.send([letter(1)])


def manifest(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": "site", "namespace": "company"}
    return {"apiVersion": "lethe.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def secret(content: dict[str, bytes]) -> SecretContent:
    return SecretContent("Opaque", content, "uid", "1")


def sql(url: str, hosts: AllowedHosts, **more: object) -> Ask:
    spec = {"urlSecretRef": {"name": "s", "key": "url"}, "subjects": SUBJECTS, **more}
    return store({"sql": spec}, {"url": url.encode()}, hosts)


def tryton(url: str, hosts: AllowedHosts, **more: object) -> Ask:
    spec = {"url": url, "database": "crm", "credentialsSecretRef": {"name": "s"}, **more}
    return store({"tryton": spec}, {"username": b"u", "password": b"p"}, hosts)


def s3(url: str, hosts: AllowedHosts, **more: object) -> Ask:
    spec = {"endpoint": url, "bucket": "dumps", "name": "{takenAt:%Y%m%d}", **more}
    keys = {"AWS_ACCESS_KEY_ID": b"a", "AWS_SECRET_ACCESS_KEY": b"s"}
    return source({"s3": {**spec, "credentialsSecretRef": {"name": "s"}}}, keys, hosts)


def restic(repository: str, hosts: AllowedHosts, **more: object) -> Ask:
    content = {name: str(more.pop(name)).encode() for name in list(more) if name.isupper()}
    spec = {"repository": repository, "credentialsSecretRef": {"name": "s"}, **more}
    return source({"restic": spec}, {"RESTIC_PASSWORD": b"p", **content}, hosts)


ADAPTERS: dict[str, Callable[[str, AllowedHosts], Ask]] = {
    "sql": lambda place, hosts: sql(f"postgresql://u:p@{place}/db", hosts),
    "sql, one of several": lambda place, hosts: sql(f"postgresql://u:p@{UNKNOWN},{place}/db", hosts),
    "tryton": lambda place, hosts: tryton(f"https://{place}", hosts),
    "s3": lambda place, hosts: s3(f"https://{place}", hosts),
    "restic, rest": lambda place, hosts: restic(f"rest:https://{place}/", hosts),
    "restic, s3": lambda place, hosts: restic(f"s3:https://{place}/dumps", hosts),
    "restic, s3 without a scheme": lambda place, hosts: restic(f"s3:{place}/dumps", hosts),
    "restic, swift": lambda place, hosts: restic("swift:dumps:/", hosts, OS_AUTH_URL=f"https://{place}/v3"),
    "restic, azure's suffix": lambda place, hosts: restic(
        "azure:dumps:/", hosts, AZURE_ACCOUNT_NAME=f"{place}/?", AZURE_ENDPOINT_SUFFIX="x.example"
    ),
    "smtp": lambda place, hosts: channel(
        hosts, smtp_url=f"smtps://{place}", mail_from="privacy@site.example"
    ),
    "webhook": lambda place, hosts: channel(
        hosts,
        webhook_url=f"https://{place}/",
        webhook_secret=f"whsec_{'YWJj' * 10}",
    ),
}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", NAMED])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_by_default_nobody_leads_lethe_to_its_own_machine(
    adapter: str, host: str, listener: Listener
) -> None:
    ask = ADAPTERS[adapter](f"{host}:{listener.port}", AllowedHosts())
    with pytest.raises(FAILURES, match=REFUSED) as refused:
        ask()
    assert "have who runs Lethe allow it" in str(refused.value)
    assert host not in str(refused.value)
    assert listener.visitors == 0


@pytest.mark.parametrize("adapter", [name for name in ADAPTERS if not name.startswith("restic")])
def test_what_the_setting_allows_is_connected_to(adapter: str, listener: Listener) -> None:
    ask = ADAPTERS[adapter](f"127.0.0.1:{listener.port}", AllowedHosts.parse("127.0.0.0/8"))
    with suppress(*FAILURES):  # channels put their letters off
        ask()
    assert listener.visitors > 0


PLAIN: dict[str, tuple[Callable[..., Ask], str, str]] = {
    "tryton": (tryton, "http://{}", "spec.tryton.allowPlaintext"),
    "s3": (s3, "http://{}", "spec.s3.allowPlaintext"),
    "restic, rest": (restic, "rest:http://{}/", "spec.restic.allowPlaintext"),
    "restic, s3": (restic, "s3:http://{}/dumps", "spec.restic.allowPlaintext"),
}


@pytest.mark.parametrize("adapter", PLAIN)
def test_without_tls_nothing_is_sent_beyond_this_machine(adapter: str, beyond: tuple[str, Listener]) -> None:
    (address, listening), (made, form, field) = beyond, PLAIN[adapter]
    ask = made(form.format(f"{address}:{listening.port}"), AllowedHosts())
    with pytest.raises(FAILURES, match=WITHOUT_TLS) as refused:
        ask()
    assert f"use TLS, or set {field}: true" in str(refused.value)
    assert listening.visitors == 0


@pytest.mark.parametrize("adapter", ["tryton", "s3"])
def test_who_says_so_is_spoken_to_without_tls(adapter: str, beyond: tuple[str, Listener]) -> None:
    (address, listening), (made, form, _) = beyond, PLAIN[adapter]
    ask = made(form.format(f"{address}:{listening.port}"), AllowedHosts(), allowPlaintext=True)
    with pytest.raises(FAILURES) as away:
        ask()
    assert WITHOUT_TLS not in str(away.value)
    assert listening.visitors > 0
