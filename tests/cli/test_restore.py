"""`kubectl lethe restore`: what it says at three in the morning, and by which exit code."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from devtools.company import Api
from devtools.servers import CommandFailed
from devtools.servers.controlplane import ControlPlane
from lethe.api.v1alpha1.restoreevent import RestoreState
from lethe.cli.callers_kubectl import Exit
from lethe.cli.restore import ASKS, OVER
from tests.cli.test_kubectl import kubeconfig_of, plugin
from tests.e2e.conftest import api

__all__ = ["api"]  # a fixture

WHY = ("--reason", "NaturalDisaster", "--justification", "disk lost, INC-42")
NOW = "2026-11-29T02:58:04Z"


class Desk:
    """A terminal, with a store `site` and no Lethe: what its statuses say is written by hand."""

    def __init__(self, api: Api, control_plane: ControlPlane) -> None:
        self.api, self.control_plane = api, control_plane
        api.sql_store("site", "postgresql://nowhere.example/site")

    def type(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Type a command."""
        return plugin(self.control_plane, self.api.namespace, "restore", *words)

    def event(
        self, name: str, state: str, *, says: str = "", status: Mapping[str, Any] | None = None, **spec: Any
    ) -> None:
        """Let there be a RestoreEvent that stands somewhere, whose Ready `says` a message."""
        given = {"store": "site", "reason": "Drill", "justification": "INC-42", **spec}
        self.api.create("restoreevents", name, given)
        self.say("restoreevents", name, state=state, Ready=("False", state, says), **(status or {}))

    def say(self, plural: str, name: str, *, state: str | None = None, **said: Any) -> None:
        """Write a status as Lethe would; conditions are given as (status, reason, message)."""
        conditions = [
            {"type": kind, "status": one[0], "reason": one[1], "message": "".join(one[2:])}
            | {"lastTransitionTime": NOW, "observedGeneration": 1}
            for kind, one in said.items()
            if isinstance(one, tuple)
        ]
        rest = {key: value for key, value in said.items() if not isinstance(value, tuple)}
        status = {"conditions": conditions, **({"state": state} if state else {}), **rest}
        path = f"{self.api.path(plural, name)}/status"
        code, body = self.api.call("PATCH", path, {"status": status}, "application/merge-patch+json")
        assert code == 200, body


@pytest.fixture
def desk(api: Api, control_plane: ControlPlane) -> Desk:
    """Where the engineer sits."""
    return Desk(api, control_plane)


def test_the_plugin_loads_none_of_what_makes_the_operator_start_slowly() -> None:
    program = "import lethe.cli.kubectl, sys; print(*sys.modules)"
    told = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"pydantic", "kubernetes", "kopf", "sqlalchemy", "asyncio"} & set(told.stdout.split()) == set()


def test_every_state_of_a_restore_is_over_asks_for_a_person_or_is_waited_for() -> None:
    waits = {"Pending", "Declared", "Expected", "Underway", "Replaying"}
    assert {*OVER, *ASKS, *waits} == {state.value for state in RestoreState}


def test_what_cannot_be_begun_or_ended_says_so_with_the_remedy_and_a_code_of_its_own(desk: Desk) -> None:
    desk.api.sql_store("crm", "postgresql://nowhere.example/crm", role="Other", owner="ThirdParty")
    for words, code, said in (
        (("begin", "--store", "sites", *WHY), Exit.NO_STORE, "DataStore sites does not exist in this namesp"),
        (("begin", "--store", "sites", *WHY), Exit.NO_STORE, "there are: crm, site"),
        (("begin", "--store", "crm", *WHY), Exit.NO_STORE, "is a third party's (spec.owner)"),
        (("end", "--store", "site"), Exit.NOT_NOW, "no restore of site has begun"),
        (
            ("begin", "--store", "site", "--timeout", "0", *WHY),
            Exit.NO_ANSWER,
            "before you restore anything.",
        ),
        (("begin", "--store", "site", *WHY), Exit.NOT_NOW, "a restore of site has begun already, since 20"),
        (("status", "--store", "site"), Exit.CLOSED, "NEXT  restore the database; once it is back:"),
        (("end", "--store", "site"), Exit.FINE, "has ended. Lethe looks now."),
        (("end", "--store", "site"), Exit.FINE, "It has ended already, says RestoreEvent restore-site-"),
        (("end", "--store", "site", "--name", "other"), Exit.NOT_NOW, "no restore of site has begun"),
        (("begin", "--store", "site", *WHY[:3], "a@b.example"), Exit.FAILED, "spec.justification"),
    ):
        run = desk.type(*words)
        assert run.returncode == code, (words, run.stdout, run.stderr)
        assert said in run.stdout + run.stderr
        assert "Traceback" not in run.stderr
        assert "a@b.example" not in run.stdout + run.stderr


def test_of_several_that_have_begun_each_is_ended_by_its_name(desk: Desk) -> None:
    for name in ("first", "second"):
        desk.event(name, "Underway", underway="Begun")
    run = desk.type("end", "--store", "site")
    assert run.returncode == Exit.NOT_NOW
    for name in ("first", "second"):
        [command] = [line for line in run.stderr.splitlines() if f"--name {name}" in line]
        assert desk.type("end", "--store", "site", "--name", name).returncode == Exit.FINE, command
    assert {one["spec"]["underway"] for one in desk.api.list("restoreevents")} == {"Ended"}


def test_who_lacks_the_right_is_told_which_one(
    desk: Desk, control_plane: ControlPlane, tmp_path: Path
) -> None:
    nobody = kubeconfig_of("dana", control_plane, tmp_path)
    run = plugin(
        control_plane, desk.api.namespace, "restore", "begin", "--store", "site", *WHY, kubeconfig=nobody
    )
    assert run.returncode == Exit.FORBIDDEN, run.stderr
    assert "Ask for the verbs get and list on datastores.lethe.dev and restoreevents.lethe.dev" in run.stderr


COUNTED = {"missing": 4, "reErased": 2, "leftAlone": 1, "unclear": 1, "sameAddress": 1}
TABLES = [{"table": "sessions", "rows": 7}, {"table": "users", "rows": 2}]


@pytest.mark.parametrize(
    ("state", "more", "printed"),
    [
        (
            "IdentityUnclear",
            {"unclear": [{"table": "users", "key": "it's 7"}]},
            '"decision":"Erase|LeaveAlone"',
        ),
        ("AwaitingRelease", {}, '"release":'),
        ("HeldRowsReturned", {}, '"release":{"uid":'),
    ],
)
def test_what_needs_a_person_is_said_with_the_command_that_decides_it(
    desk: Desk, control_plane: ControlPlane, state: str, more: Mapping[str, Any], printed: str
) -> None:
    desk.say("datastores", "site", SafeToServe=("False", state))
    said = "set spec.release of the RestoreEvent" + " with its uid" * ("uid" in printed)
    status = {"replay": {**COUNTED, "tables": TABLES}, **more}
    desk.event("r", state, says=said, status=status, underway="Begun")
    desk.api.patch_spec("restoreevents", "r", {"underway": "Ended"})
    started = time.monotonic()
    run = desk.type("status", "--store", "site", "--wait")
    assert time.monotonic() - started < 30, "nothing to wait for"
    assert run.returncode == Exit.ASKS, run.stdout
    assert "site: CLOSED since 2026-11-29 02:58:04Z" in run.stdout
    assert "erasures: 4 were missing, 2 made again, 1 left alone, 1 unclear" in run.stdout
    assert "sessions         7 rows cleared or deleted again" in run.stdout
    [command] = [line for line in run.stdout.splitlines() if printed in line]
    words = shlex.split(command)
    assert words[0] == "kubectl"
    if more:
        with pytest.raises(CommandFailed):  # nobody has chosen yet
            control_plane.kubectl(*words[1:])
    control_plane.kubectl(*(word.replace("|LeaveAlone", "") for word in words[1:]))
    spec = (desk.api.get("restoreevents", "r") or {})["spec"]
    assert spec.get("identities", [{}])[0].get("key") == ("it's 7" if more else None)
    uid = (desk.api.get("restoreevents", "r") or {})["metadata"]["uid"] if "uid" in printed else None
    assert spec.get("release", {}).get("uid") == uid


def test_once_it_is_over_it_says_what_came_back_and_asks_for_a_reason_that_lacks(desk: Desk) -> None:
    desk.say("datastores", "site", SafeToServe=("True", "Verified"))
    assert desk.type("status").returncode == Exit.FINE
    replay = {**COUNTED, "unclear": 0}
    status = {"replay": replay, "safeToServeAt": NOW, "restoredFrom": {"takenAt": NOW, "snapshot": "nightly"}}
    desk.event("found", "SafeToServe", status=status, reason="Undeclared", justification=None)
    run = desk.type("status", "--store", "site", "--wait")
    assert run.returncode == Exit.FINE, run.stdout
    assert "site: OPEN since" in run.stdout
    assert "the moment to which it went back (nightly)" in run.stdout
    assert "NEXT  say why there was a restore (found):" in run.stdout
    assert '"reason":"NaturalDisaster|SecurityBreach|Drill"' in run.stdout


def test_a_broken_glass_is_an_open_gate_and_nothing_to_wait_for(desk: Desk) -> None:
    desk.say("datastores", "site", SafeToServe=("False", "Released", "the glass was broken"))
    desk.event("r", "Released", says="the glass was broken", status={"replay": COUNTED})
    run = desk.type("status", "--store", "site", "--wait")
    assert run.returncode == Exit.FINE, run.stdout
    assert "site: OPEN since" in run.stdout
    assert "NEXT  the glass was broken, and erased people may be served" in run.stdout


def test_a_warning_that_came_to_nothing_asks_nobody_for_a_reason(desk: Desk) -> None:
    desk.say("datastores", "site", SafeToServe=("True", "Verified"))
    desk.event("warned", "Expired", reason="Undeclared", justification=None)
    run = desk.type("status", "--store", "site")
    assert run.returncode == Exit.FINE
    assert "NEXT  nothing: every erasure is in place" in run.stdout


def test_whom_the_gate_keeps_out_is_said_of_each_way_and_of_pods_by_any_selector(desk: Desk) -> None:
    asked = desk.type("status", "--store", "site")
    assert "nobody is kept out: the DataStore has no spec.gate" in asked.stdout
    wanted = {"matchExpressions": [{"key": "app", "operator": "In", "values": ["site", "worker"]}]}
    gate = {"podSelector": wanted, "role": {"names": ["shop"]}}
    desk.api.patch_spec("datastores", "site", {"gate": gate})
    asked = desk.type("status", "--store", "site")
    assert "0 of 0 pods with app in (site,worker) are out of service" in asked.stdout
    assert "who connects as a role of spec.gate (once its server answers) is kept out besides" in asked.stdout
