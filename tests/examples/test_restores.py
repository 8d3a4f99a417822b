"""The page for three in the morning: what it says to type is typed, and does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.cluster.build import binaries
from devtools.company import Api, Site, eventually
from devtools.servers import ControlPlane, PostgresServer
from tests.e2e.conftest import StartOperator, api, start_operator
from tests.e2e.test_restore_underway import gate_of, open_site

__all__ = ["api", "start_operator"]  # fixtures

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "restores"
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """Return what the page says to type, in its order."""
    return re.findall(r"^    (\S.*(?:(?<=\\)\n.*)*)$", PAGE, re.MULTILINE)


def test_the_page_for_the_night_fits_on_a_screen() -> None:
    lines = PAGE.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100


@pytest.mark.slow
def test_whoever_types_what_the_page_says_restores_the_site_and_nobody_comes_back(
    tmp_path: Path, api: Api, control_plane: ControlPlane, start_operator: StartOperator
) -> None:
    with PostgresServer(tmp_path / "server") as server:
        site = Site(server.create_database("site"))
        ada, cleo = site.sign_up("ada@canary.example", "cleo@canary.example")
        start_operator()
        open_site(api, site)
        server.dump("site", tmp_path / "site.dump")
        api.request_by_id("ada", ada)
        api.wait("deletionrequests", "ada", "Erased")
        environment = {
            **os.environ,
            "PGHOST": "127.0.0.1",
            "PGPORT": str(server.port),
            "PGUSER": "postgres",
            "PGPASSWORD": server.password,
            "PATH": f"{Path(sys.executable).parent}:{binaries()}:{server.programs}:{os.environ['PATH']}",
            "KUBECONFIG": str(control_plane.kubeconfig),
        }
        begin, restore, end, status = (one.replace("-n privacy", f"-n {api.namespace}") for one in commands())
        for command in (begin, restore, end):
            said = subprocess.run(
                ["bash", "-euc", command],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert said.returncode == 0, f"{command}\n{said.stdout}\n{said.stderr}"
            if command == begin:
                assert gate_of(api)["reason"] == "RestoreUnderway"
                assert "1 of 1 pods with app=site are out of service" in said.stdout
                assert end in said.stdout
            if command == restore:
                assert site.is_intact(ada)
            if command == end:
                assert "nothing: every erasure is in place" in said.stdout
                assert "erasures: 1 were missing, 1 made again" in said.stdout
        assert site.is_cleared(ada)
        assert site.is_intact(cleo)
        eventually(lambda: gate_of(api)["status"] == "True", "the gate to be open again")
        again = subprocess.run(["bash", "-euc", status], env=environment, capture_output=True, check=False)
        assert again.returncode == 0


def test_what_the_page_says_without_the_plugin_is_taken_by_an_api_server(
    tmp_path: Path, api: Api, control_plane: ControlPlane
) -> None:
    ended = '{"spec":{"underway":"Ended"}}'
    assert f"patch revent incident-42 --type=merge -p '{ended}'" in PAGE
    event = (FOLDER / "begin.yaml").read_text(encoding="utf-8").replace("privacy", api.namespace)
    (tmp_path / "begin.yaml").write_text(event, encoding="utf-8")
    control_plane.kubectl("create", "--filename", str(tmp_path / "begin.yaml"))
    control_plane.kubectl("-n", api.namespace, "patch", "revent", "incident-42", "--type=merge", "-p", ended)
