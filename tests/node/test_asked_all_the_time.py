"""A web service on a real node, asked all the time through its Service: does it ever show who was erased?"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from devtools.company import eventually
from devtools.node.outside import Manifest, Outside
from devtools.servers.postgres import PostgresServer
from tests.cli.test_kubectl import plugin
from tests.node.test_story import PATIENCE, Company, company, endpoints, is_running, told_by

__all__ = ["company"]  # a fixture

ADA = "ada@canary.example"
SITE = """
import http.server, os, psycopg

class Page(http.server.BaseHTTPRequestHandler):
    protocol_version, database = "HTTP/1.1", None

    def do_GET(self):
        try:
            if self.database is None:
                self.database = psycopg.connect(os.environ["DATABASE"], connect_timeout=2, autocommit=True)
            code, rows = 200, self.database.execute("SELECT email FROM users").fetchall()
        except psycopg.Error:
            code, rows, self.database = 503, [], None
        body = repr(rows).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("", 8000), Page).serve_forever()
"""
ASKER = """
import http.client, os, sys, time

kept, connection = sys.argv[2] == "kept", None
while True:
    try:
        if connection is None or not kept:
            connection = http.client.HTTPConnection(os.environ["TO"], 80, timeout=2)
        connection.request("GET", "/")
        answer = connection.getresponse()
        text = answer.read().decode()
        said = "out" if answer.status != 200 else "ada" if "ada@" in text else "clean"
    except (OSError, http.client.HTTPException):
        said, connection = "out", None
    print(f"{time.time():.3f} {said}", flush=True)
    time.sleep(0.05)
"""
ASKERS = {"new": ("site", "anew"), "kept": ("site", "kept"), "unready": ("unready", "anew")}
"""Whom they ask, by the Service's name, and whether they keep their connection alive."""
BOTH = ("new", "kept")


class Web:
    """The site's pod behind its Service, and who asks it."""

    def __init__(self, outside: Outside, company: Company, server: PostgresServer) -> None:
        self._outside, self._namespace = outside, company.api.namespace
        self.app = f"app_{company.database.replace('-', '_')}"
        server.psql(f"CREATE ROLE {self.app} LOGIN PASSWORD 'secret'")
        server.psql(f"GRANT SELECT ON users TO {self.app}", database=company.database)
        port = urlsplit(company.site.url).port
        url = f"postgresql://{self.app}:secret@{outside.address}:{port}/{quote(company.database)}"
        self.url_outside = url  # by which the pods come, too
        for name, unready in (("site", False), ("unready", True)):
            metadata = {"name": name, "namespace": self._namespace}
            spec: Manifest = {"selector": {"app": "site"}, "publishNotReadyAddresses": unready}
            spec["ports"] = [{"port": 80, "targetPort": 8000}]
            outside.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
        self._run("site", SITE, DATABASE=url)
        eventually(lambda: endpoints(outside, company) == [True], told_by(outside), PATIENCE)
        for asker, (service, how) in ASKERS.items():
            address = outside.read("service", service, f"--namespace={self._namespace}")["spec"]["clusterIP"]
            self._run(asker, ASKER, how, TO=address)
        for asker in ASKERS:
            eventually(lambda: is_running(outside, self._namespace, asker), told_by(outside), PATIENCE)  # noqa: B023

    def _run(self, name: str, script: str, *arguments: str, **environment: str) -> None:
        container = {
            "name": "it",
            "image": self._outside.image,
            "imagePullPolicy": "Never",
            "command": ["/opt/lethe/bin/python", "-c", script, name, *arguments],
            "env": [{"name": key, "value": value} for key, value in environment.items()],
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        spec = {
            "readinessGates": [{"conditionType": "lethe.dev/safe-to-serve"}] if name == "site" else [],
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        }
        metadata = {"name": name, "namespace": self._namespace, "labels": {"app": name}}
        self._outside.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    def answers(self, asker: str) -> list[str]:
        """Return all that somebody was told so far."""
        lines = self._outside.kubectl("logs", asker, f"--namespace={self._namespace}").splitlines()
        return [line.split()[1] for line in lines]

    def wait(self, said: str, since: dict[str, int], by: Iterable[str] = BOTH) -> None:
        """Wait until all of these were told this, after so many answers."""

        def met() -> bool:
            return all(said in self.answers(who)[since[who] :] for who in by)

        eventually(met, lambda: str({who: self.answers(who)[-5:] for who in by}), PATIENCE)

    def counts(self) -> dict[str, int]:
        """Return how many answers there have been."""
        return {who: len(self.answers(who)) for who in ASKERS}


@pytest.fixture
def web(outside: Outside, company: Company, open_postgres: PostgresServer) -> Web:
    """The site, which has Ada in it, and is asked all the time; its gate closes the pod."""
    company.site.sign_up(ADA, "bob@canary.example")
    web = Web(outside, company, open_postgres)
    web.wait("ada", dict.fromkeys(ASKERS, 0), ASKERS)
    return web


def close_the_role_too(company: Company, web: Web) -> None:
    """Let the gate close the role that the site connects as, besides the pod."""
    company.api.patch_spec("datastores", "site", {"gate": {"role": {"names": [web.app]}}})


def erase_after_a_dump(company: Company, server: PostgresServer, web: Web, folder: Path) -> Path:
    """Have Ada erased after a dump was taken; both are told so."""
    dump = server.dump(company.database, folder / "site.dump")
    company.request([1])
    company.are_erased([1])
    web.wait("clean", web.counts())
    return dump


def test_a_restore_that_is_told_ahead_shows_nobody_who_was_erased(
    outside: Outside, company: Company, web: Web, open_postgres: PostgresServer, tmp_path: Path
) -> None:
    close_the_role_too(company, web)
    dump = erase_after_a_dump(company, open_postgres, web, tmp_path)
    since = web.counts()
    company.api.patch_spec("datastores", "site", {"suspend": True})
    eventually(lambda: endpoints(outside, company) == [False], told_by(outside), PATIENCE)
    web.wait("out", web.counts())
    open_postgres.restore(company.database, dump, "--clean", "--if-exists")
    assert not company.site.is_cleared(1)
    back = web.counts()
    company.api.patch_spec("datastores", "site", {"suspend": None})
    web.wait("clean", back)
    assert company.site.is_cleared(1)
    for who in BOTH:
        assert set(web.answers(who)[since[who] :]) == {"clean", "out"}


def test_roles_that_are_closed_by_command_show_nobody_from_begin_to_end(
    outside: Outside, company: Company, web: Web, open_postgres: PostgresServer, tmp_path: Path
) -> None:
    """As docs/restoring.md has it, without any pod to take out: the database is dropped and made anew."""
    company.api.patch_spec(
        "datastores", "site", {"gate": {"podSelector": None, "role": {"names": [web.app]}}}
    )
    dump = erase_after_a_dump(company, open_postgres, web, tmp_path)
    company.api.wait("datastores", "site", "SafeToServe", patience=PATIENCE)
    since = web.counts()
    why = ("--reason", "Drill", "--justification", "INC-42")
    begun = plugin(outside, company.api.namespace, "restore", "begin", "--store", "site", *why)
    assert begun.returncode == 0, begun.stdout + begun.stderr
    assert "is kept out besides" in begun.stdout
    assert not can_log_in(open_postgres, web.app)
    web.wait("out", web.counts(), ASKERS)
    open_postgres.psql(f'DROP DATABASE "{company.database}"')  # without FORCE: nobody is in it
    open_postgres.create_database(company.database)
    open_postgres.restore(company.database, dump)
    assert not company.site.is_cleared(1)
    back = web.counts()
    ended = plugin(outside, company.api.namespace, "restore", "end", "--store", "site", "--wait")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    web.wait("clean", back, ASKERS)
    assert company.site.is_cleared(1)
    for who in ASKERS:
        assert set(web.answers(who)[since[who] :]) == {"clean", "out"}


def can_log_in(server: PostgresServer, role: str) -> bool:
    return server.psql(f"SELECT rolcanlogin FROM pg_roles WHERE rolname = '{role}'") == "t"


def test_a_restore_that_nobody_told_shows_her_until_the_gate_is_closed_and_no_more(
    outside: Outside, company: Company, web: Web, open_postgres: PostgresServer, tmp_path: Path
) -> None:
    close_the_role_too(company, web)
    dump = erase_after_a_dump(company, open_postgres, web, tmp_path)
    open_postgres.restore(company.database, dump, "--clean", "--if-exists")
    with company.holding([1]):
        eventually(lambda: endpoints(outside, company) == [False], told_by(outside), PATIENCE)
        web.wait("out", web.counts())
        closed = web.counts()
        assert not company.site.is_cleared(1)
    web.wait("clean", closed)
    for who in BOTH:
        assert "ada" not in web.answers(who)[closed[who] :]


def test_pods_alone_don_t_keep_out_who_keeps_a_connection_alive(
    outside: Outside, company: Company, web: Web, open_postgres: PostgresServer, tmp_path: Path
) -> None:
    dump = erase_after_a_dump(company, open_postgres, web, tmp_path)
    open_postgres.restore(company.database, dump, "--clean", "--if-exists")
    with company.holding([1]):
        eventually(lambda: endpoints(outside, company) == [False], told_by(outside), PATIENCE)
        web.wait("out", web.counts(), ("new",))
        web.wait("ada", web.counts(), ("kept",))
    web.wait("clean", web.counts())
