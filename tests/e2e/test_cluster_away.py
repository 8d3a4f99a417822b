"""An API server that does not answer: Lethe stays alive, works in the stores, and tells of it afterwards."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from devtools.company import Api, Site, eventually
from devtools.operator_process import OperatorProcess
from devtools.servers.controlplane import ControlPlane
from devtools.servers.relay import Relay

AWAY_SECONDS = 12.0
TURNS_WITHIN = 10.0
"""Seconds of `/healthz`, which lets a pod be killed from 60 on."""
WAITING = 40


@pytest.fixture
def relay(control_plane: ControlPlane) -> Iterator[Relay]:
    """What leads to the API server."""
    with Relay(urlsplit(control_plane.url).port or 443) as relay:
        yield relay


@pytest.fixture
def operator(
    tmp_path: Path, control_plane: ControlPlane, namespace: str, relay: Relay
) -> Iterator[OperatorProcess]:
    """An operator that reaches the API server through the relay only."""
    config = json.loads(control_plane.kubeconfig_of("operator").read_text())
    for cluster in config["clusters"]:
        cluster["cluster"]["server"] = f"https://127.0.0.1:{relay.port}"
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    process = OperatorProcess(tmp_path / "operator", tmp_path / "kubeconfig", namespaces=[namespace])
    try:
        yield process.start()
    finally:
        relay.let_go()
        process.stop()


def test_without_its_api_server_lethe_is_alive_works_in_stores_and_tells_later(
    api: Api, site: Site, operator: OperatorProcess, relay: Relay
) -> None:
    people = [f"p{number}@canary.example" for number in range(WAITING)]
    keys = site.sign_up("ada@canary.example", *people)
    api.sql_store("site", site.url)
    api.wait("datastores", "site", "SafeToServe")
    with psycopg.connect(site.url) as holding:  # as a long transaction of the site's does
        holding.execute("SELECT 1 FROM users WHERE id = %s FOR UPDATE", (keys[0],))
        api.request_by_id("ada", keys[0])
        eventually(lambda: "acceptedAt" in ((api.get("deletionrequests", "ada") or {})["status"]), "ada")
        for number in range(WAITING):  # who ask, and whose Secrets are read again and again
            subject = {"identifierSecretRef": {"name": f"r{number}", "key": "email"}}
            api.create("deletionrequests", f"r{number}", {"subject": subject})
        api.wait_reason("deletionrequests", f"r{WAITING - 1}", "SecretMissing")
        relay.hold()
    eventually(lambda: site.is_cleared(keys[0]), "the erasure that goes on in the store")
    until = time.monotonic() + AWAY_SECONDS
    while time.monotonic() < until:
        turned = float(operator.page("healthz").removeprefix("last turn ").removesuffix(" s ago\n"))
        assert turned < TURNS_WITHIN
        time.sleep(0.2)
    for number, email in enumerate(people):
        api.secret(f"r{number}", {"email": email}, "lethe.dev/identifier")

    relay.let_go()
    api.wait("deletionrequests", "ada", "Erased", patience=90)
    for number, key in enumerate(keys[1:]):
        api.wait("deletionrequests", f"r{number}", "Erased", patience=90)
        assert site.is_cleared(key)
    assert operator.running
