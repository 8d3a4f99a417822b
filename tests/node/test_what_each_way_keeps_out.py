"""Each way of the gate on a real node, while a store is not safe to serve: whom it keeps out, whom not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from devtools.company import eventually
from devtools.node.outside import Outside
from devtools.node.policies import Policies
from devtools.servers.postgres import PostgresServer
from tests.node.test_asked_all_the_time import ASKERS, Web, erase_after_a_dump, web
from tests.node.test_story import PATIENCE, Company, company, told_by

__all__ = ["company", "web"]  # fixtures

GATE_DOCS = Path(__file__).resolve().parents[2] / "docs" / "gate.md"
OUT, SHOWN = "kept out", "**shown**"
ANSWERS = 5
"""By how many answers in a row it is told whether somebody is kept out."""

POLICY = {"networkPolicy": {"podSelector": {"matchLabels": {"app": "site"}}}}
WAYS = ["`podSelector`", "`role`", "`networkPolicy`, no plugin", "`networkPolicy`, kube-router"]


@pytest.fixture
def way(request: pytest.FixtureRequest, outside: Outside, tmp_path: Path) -> Iterator[str]:
    """One of the ways, and a node that heeds policies, or does not."""
    name: str = request.param
    in_kind = not outside.image.startswith("localhost/")
    if in_kind and POLICY.keys() & {name.partition("`, ")[0].strip("`")}:
        pytest.skip("kind has a plugin of its own")
    with contextlib.ExitStack() as stack:
        if name.endswith("kube-router"):
            try:
                stack.enter_context(Policies(outside.kubeconfig, tmp_path))
            except SystemExit as missing:
                pytest.skip(str(missing))
        yield name


@pytest.mark.parametrize("way", WAYS, indirect=True)
def test_a_way_of_the_gate_keeps_out_whom_the_docs_say_and_nobody_else(
    way: str,
    outside: Outside,
    company: Company,
    web: Web,
    open_postgres: PostgresServer,
    tmp_path: Path,
) -> None:
    gate: dict[str, Any] = {}
    if "role" in way:
        gate = {"podSelector": None, "role": {"names": [web.app]}}
    elif "networkPolicy" in way:
        gate = {"podSelector": None, **POLICY}
    company.api.patch_spec("datastores", "site", {"gate": gate})
    dump = erase_after_a_dump(company, open_postgres, web, tmp_path)
    outer = psycopg.connect(web.url_outside, autocommit=True)
    open_postgres.restore(company.database, dump, "--clean", "--if-exists")
    with company.holding([1]):
        if way.endswith("no plugin"):
            eventually(lambda: "lethe-gate-site" in policies(outside, company), told_by(outside), PATIENCE)
        else:
            web.wait("out", web.counts(), ["new"])
        seen = {"new": "", "kept": "", "unready": ""}
        for who in ASKERS:
            seen[who] = told(web, who)
        with contextlib.closing(outer):
            seen |= {"outside": shown(web.url_outside), "session": shown(outer)}
        assert not company.site.is_cleared(1)
    web.wait("clean", web.counts(), ASKERS)
    assert company.site.is_cleared(1)
    row = f"| {way} | {' | '.join(seen.values())} |"
    assert row in GATE_DOCS.read_text(encoding="utf-8").splitlines(), row


def told(web: Web, asker: str) -> str:
    """Return what somebody is told now, so many times in a row."""
    since = web.counts()[asker]

    def last() -> set[str]:
        answers = web.answers(asker)[since:]
        return set(answers[-ANSWERS:]) if len(answers) >= ANSWERS else set()

    eventually(lambda: len(last()) == 1, lambda: str(web.answers(asker)[since:]), PATIENCE)
    (said,) = last()
    return {"out": OUT, "ada": SHOWN}.get(said, said)


def shown(database: str | psycopg.Connection[Any]) -> str:
    """Return what somebody outside of the cluster is told by a new session, or by one that was there."""
    try:
        connection = psycopg.connect(database) if isinstance(database, str) else database
        rows = connection.execute("SELECT email FROM users WHERE email LIKE 'ada@%'").fetchall()
        if isinstance(database, str):
            connection.close()
    except psycopg.OperationalError:
        return OUT
    return SHOWN if rows else "clean"


def policies(outside: Outside, company: Company) -> str:
    """Return the names of the namespace's NetworkPolicies."""
    return outside.kubectl("get", "networkpolicies", "--output=name", f"--namespace={company.api.namespace}")
