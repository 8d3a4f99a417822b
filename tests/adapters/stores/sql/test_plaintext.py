"""Beyond this machine a database is spoken to by TLS, unless the spec says that it need not be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.servers import PostgresServer
from devtools.servers.certificates import write_certificates
from devtools.servers.children import outer_address
from lethe.adapters.stores.sql.sessions import Sessions
from lethe.ports.stores import StoreUnreachable
from tests.adapters.stores.sql.conftest import store_of
from tests.adapters.stores.sql.encrypting_proxy import EncryptingProxy

MODES = ["", "?sslmode=prefer", "?sslmode=allow"]


@pytest.fixture(scope="module")
def address() -> str:
    found = outer_address()
    if found is None:
        pytest.skip("nobody else reaches this machine")
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server that others reach, without TLS."""
    with PostgresServer(tmp_path_factory.mktemp("outside"), fsync=False, from_elsewhere=True) as running:
        yield running


@pytest.fixture
def url(server: PostgresServer, address: str) -> str:
    return server.url().replace("@127.0.0.1:", f"@{address}:")


@pytest.fixture
def encrypted_url(server: PostgresServer, address: str, tmp_path: Path) -> Iterator[str]:
    write_certificates(tmp_path)
    with EncryptingProxy(tmp_path, server.port, address) as proxy:
        yield server.url().replace(f"@127.0.0.1:{server.port}", f"@{address}:{proxy.port}")


@pytest.mark.parametrize("mode", MODES)
def test_a_server_without_tls_is_not_spoken_to(url: str, mode: str) -> None:
    with pytest.raises(StoreUnreachable, match="the server offers no TLS") as refused:
        store_of(url + mode).observe()
    assert "spec.sql.allowPlaintext: true" in refused.value.remedy


def test_a_url_that_rules_tls_out_is_refused_whatever_the_server_offers(encrypted_url: str) -> None:
    with pytest.raises(StoreUnreachable, match="sslmode=disable in the URL rules TLS out") as refused:
        store_of(f"{encrypted_url}?sslmode=disable").observe()
    assert "spec.sql.allowPlaintext: true" in refused.value.remedy


@pytest.mark.parametrize("mode", [*MODES, "?sslmode=require"])
def test_whatever_the_url_says_the_session_is_encrypted(encrypted_url: str, mode: str) -> None:
    sessions = Sessions(encrypted_url + mode)
    with sessions.alive() as session:
        assert session.pgconn.ssl_in_use
    sessions.close()


@pytest.mark.parametrize("mode", [*MODES, "?sslmode=disable"])
def test_who_says_so_speaks_to_a_server_without_tls(url: str, mode: str) -> None:
    sessions = Sessions(url + mode, allow_plaintext=True)
    with sessions.alive() as session:
        assert not session.pgconn.ssl_in_use
    sessions.close()


def test_on_this_machine_a_server_needs_no_tls(server: PostgresServer) -> None:
    sessions = Sessions(f"{server.url()}?sslmode=disable")
    with sessions.alive() as session:
        assert not session.pgconn.ssl_in_use
    sessions.close()
