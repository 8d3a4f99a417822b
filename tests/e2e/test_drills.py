"""RestoreDrills on the real API server: on demand, by a command and by a Job, and what outlives a kill."""

import base64
import json
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from devtools.company import Api, Site, eventually
from devtools.dumps import apply_source, days_ago, dump_name
from devtools.operator_process import OperatorProcess
from devtools.servers import ControlPlane, PostgresServer
from tests.e2e import crashing
from tests.e2e.conftest import StartOperator
from tests.e2e.test_restore import database_of

SUNDAYS = "0 4 * * SUN"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server of which no DataStore knows."""
    with PostgresServer(tmp_path_factory.mktemp("scratch"), fsync=False) as running:
        yield running


class Rehearsing:
    """A site of which there is a dump, with somebody who was erased since."""

    def __init__(
        self, api: Api, site: Site, postgres: PostgresServer, scratch: PostgresServer, home: Path
    ) -> None:
        self.api, self.site, self.scratch = api, site, scratch
        self.dumps, self.commands = home / "dumps", home / "commands"
        self.dumps.mkdir()
        self.commands.mkdir()
        self.command(
            "pg-restore",
            f'exec {scratch.programs}/pg_restore --no-owner --exit-on-error --dbname="$LETHE_SCRATCH_URL"'
            ' "$LETHE_SNAPSHOT_PLACE/$LETHE_SNAPSHOT"',
        )
        self._postgres = postgres

    def command(self, name: str, line: str) -> None:
        file = self.commands / name
        file.write_text(f"#!/bin/sh\n{line}\n")
        file.chmod(0o755)

    def begin(self, start_operator: StartOperator, **environment: str) -> OperatorProcess:
        operator = start_operator(
            LETHE_DRILL_COMMANDS_DIR=str(self.commands),
            LETHE_BACKUP_DIRECTORIES=str(self.dumps),
            LETHE_SCAN_INTERVAL="1s",
            **environment,
        )
        (self.ada, self.bob) = self.site.sign_up("ada@canary.example", "bob@canary.example")
        self.api.sql_store("site", self.site.url)
        self.api.wait("datastores", "site", "SafeToServe")
        self._postgres.dump(database_of(self.site), self.dumps / dump_name(days_ago(0)))
        apply_source(self.api, self.dumps)
        self.api.wait("backupsources", "nightly", "Ready")
        self.api.request_by_id("ada", self.ada)
        self.api.wait("deletionrequests", "ada", "Erased")
        self.api.secret("scratch", {"url": self.scratch.url()})
        return operator

    def apply(self, name: str = "sunday", **spec: Any) -> None:
        given = {
            "source": "nightly",
            "schedule": SUNDAYS,
            "runNow": "at-once",
            "scratch": {"urlSecretRef": {"name": "scratch", "key": "url"}},
            "restore": {"command": "pg-restore"},
            **spec,
        }
        self.api.create("restoredrills", name, given)

    def ended(self, name: str = "sunday", *, patience: float = 60) -> dict[str, Any]:
        """Return the status of a drill that has ended."""

        def status() -> dict[str, Any]:
            return dict((self.api.get("restoredrills", name) or {}).get("status") or {})

        eventually(lambda: "result" in status(), lambda: f"the end of {name}: {status()}", patience)
        return status()

    def left(self) -> set[str]:
        rows = self.scratch.psql("SELECT datname FROM pg_database WHERE datname LIKE 'lethe\\_drill\\_%'")
        return set(rows.split())


@pytest.fixture
def rehearsing(
    api: Api, site: Site, postgres: PostgresServer, scratch: PostgresServer, tmp_path: Path
) -> Rehearsing:
    """A site with a dump and a scratch server."""
    return Rehearsing(api, site, postgres, scratch, tmp_path)


def test_a_drill_erases_again_in_the_copy_and_is_evidence_for_who_was_erased(
    rehearsing: Rehearsing, start_operator: StartOperator, control_plane: ControlPlane
) -> None:
    operator, api = rehearsing.begin(start_operator), rehearsing.api
    rehearsing.apply()
    status = rehearsing.ended()
    assert status["result"] == "Passed", status
    assert status["findings"] == {"erasedAgain": 1, "leftAlone": 0, "missed": 0}
    assert status["measures"]["databaseBytes"] > 0
    assert status["nextAt"] > status["lastEndedAt"]
    eventually(
        lambda: "rehearsedAt" in (api.get("deletionrequests", "ada") or {})["status"].get("backups", {}),
        "the request to say when it was rehearsed",
    )
    backups = (api.get("deletionrequests", "ada") or {})["status"]["backups"]
    assert backups["rehearsedAt"] == status["lastPassedAt"] == status["lastEndedAt"]
    assert rehearsing.left() == set()
    assert api.list("restoreevents") == []
    assert api.condition("datastores", "site", "SafeToServe")["status"] == "True"
    assert rehearsing.site.is_intact(rehearsing.bob)
    shown = control_plane.kubectl("--namespace", api.namespace, "get", "rdrill").splitlines()
    assert shown[0].split("  ")[0] == "NAME"
    assert all(
        one in shown[0] for one in ("LAST", "RESTORED IN", "ERASED AGAIN IN", "MISSED", "RESULT", "NEXT")
    )
    assert "Passed" in shown[1]
    assert operator.metric("lethe_restore_drill_failed") == 0
    eventually(
        lambda: operator.metric("lethe_restore_drill_period_seconds") == 7 * 86400,
        "its period to be measured",
    )
    assert "canary" not in json.dumps(api.list("restoredrills") + api.list("events"))
    # the same word again begins none; another one does
    api.patch_spec("restoredrills", "sunday", {"history": 3})
    time.sleep(1.0)
    assert rehearsing.ended()["lastStartedAt"] == status["lastStartedAt"]
    api.patch_spec("restoredrills", "sunday", {"runNow": "again"})
    eventually(lambda: len(rehearsing.ended().get("history", ())) == 2, "the second drill")


def test_a_drill_that_fails_says_so_and_is_an_alert(
    rehearsing: Rehearsing, start_operator: StartOperator
) -> None:
    operator = rehearsing.begin(start_operator)
    rehearsing.command("nothing", "exit 0")
    rehearsing.apply("empty", restore={"command": "nothing"})
    rehearsing.apply("near", scratch={"urlSecretRef": {"name": "site-db", "key": "url"}})
    assert rehearsing.ended("empty")["result"] == "NothingRestored"
    assert rehearsing.ended("near")["result"] == "Refused"
    api = rehearsing.api
    assert api.condition("restoredrills", "near", "Ready")["status"] == "False"
    assert "Stalled" in {
        one["type"] for one in (api.get("restoredrills", "near") or {})["status"]["conditions"]
    }
    eventually(lambda: operator.metric("lethe_restore_drill_failed") == 2, "two drills that failed")
    assert "backups" not in {*(api.get("deletionrequests", "ada") or {})["status"].get("backups", {})}
    assert "rehearsedAt" not in (api.get("deletionrequests", "ada") or {})["status"].get("backups", {})


def test_what_a_killed_operator_leaves_is_dropped_told_and_the_drill_begun_again(
    rehearsing: Rehearsing, start_operator: StartOperator
) -> None:
    operator, api = rehearsing.begin(start_operator), rehearsing.api
    once = rehearsing.commands / "once"
    rehearsing.command(
        "slow", f"mkdir {once} 2>/dev/null && sleep 1000; exec {rehearsing.commands}/pg-restore"
    )
    rehearsing.apply(restore={"command": "slow"})
    eventually(once.exists, "the restore to have begun")
    (left,) = rehearsing.left()
    operator.kill9()
    operator.start()
    status = rehearsing.ended()
    eventually(lambda: rehearsing.ended()["result"] == "Passed", lambda: str(rehearsing.ended()), 60)
    status = rehearsing.ended()
    assert [one["result"] for one in status["history"]] == ["Passed", "Interrupted"]
    assert rehearsing.left() == set()
    told = [one["note"] for one in api.list("events") if one["reason"] == "Interrupted"]
    assert any(left in note for note in told), told


def test_two_drills_on_one_scratch_server_take_turns(
    rehearsing: Rehearsing, start_operator: StartOperator, tmp_path: Path
) -> None:
    rehearsing.begin(start_operator)
    busy = tmp_path / "busy"
    line = f"mkdir {busy} || exit 9; sleep 0.5; rmdir {busy}; exec {rehearsing.commands}/pg-restore"
    rehearsing.command("alone", line)
    for name in ("one", "two"):
        rehearsing.apply(name, restore={"command": "alone"})
    assert [rehearsing.ended(name)["result"] for name in ("one", "two")] == ["Passed", "Passed"]


def test_a_drill_gives_way_to_a_restore_of_the_store_itself(
    rehearsing: Rehearsing, start_operator: StartOperator, postgres: PostgresServer
) -> None:
    rehearsing.begin(start_operator)
    once = rehearsing.commands / "once"
    rehearsing.command(
        "slow", f"mkdir {once} 2>/dev/null && sleep 1000; exec {rehearsing.commands}/pg-restore"
    )
    rehearsing.apply(restore={"command": "slow"})
    eventually(once.exists, "the restore to have begun")
    (dump,) = rehearsing.dumps.glob("*.dump")
    postgres.restore(database_of(rehearsing.site), dump, "--clean", "--if-exists")
    eventually(lambda: rehearsing.ended()["result"] == "Passed", lambda: str(rehearsing.ended()), 90)
    assert [one["result"] for one in rehearsing.ended()["history"]] == ["Passed", "GaveWay"]
    assert rehearsing.site.is_cleared(rehearsing.ada)


def test_a_rewritten_dump_ends_the_last_copy_though_the_operator_was_killed_over_it(
    rehearsing: Rehearsing, start_operator: StartOperator, scratch: PostgresServer
) -> None:
    operator, api = rehearsing.begin(start_operator), rehearsing.api
    (dump,) = rehearsing.dumps.glob("*.dump")
    original, once = dump.read_bytes(), rehearsing.commands / "once"
    pg_dump = (
        f'{scratch.programs}/pg_dump -Fc -f "$LETHE_SNAPSHOT_PLACE/$LETHE_SNAPSHOT" "$LETHE_SCRATCH_URL"'
    )
    rehearsing.command("pg-dump", f"{pg_dump} || exit 1; mkdir {once} 2>/dev/null && sleep 1000; exit 0")
    rehearsing.apply(rewrite=True, dump={"command": "pg-dump"})
    eventually(
        lambda: "is Forbidden" in api.condition("restoredrills", "sunday", "Ready")["message"],
        "the source to be asked first",
    )
    api.patch_spec("backupsources", "nightly", {"rewrite": "Allowed"})
    eventually(once.exists, "the dump to have been written")
    assert "lastCopyGoneAt" in (api.get("deletionrequests", "ada") or {})["status"]["backups"]
    operator.kill9()
    assert dump.read_bytes() == original
    assert (rehearsing.dumps / ".lethe-rewrite").is_dir()
    operator.start()
    eventually(lambda: rehearsing.ended().get("rewrite") == "Rewritten", lambda: str(rehearsing.ended()), 90)
    assert rehearsing.ended()["result"] == "Passed"
    api.wait("deletionrequests", "ada", "Purged")
    eventually(
        lambda: "rewrittenAt" in api.list("backupsnapshots")[0]["status"], "the snapshot to say that it was"
    )
    (snapshot,) = api.list("backupsnapshots")
    assert snapshot["status"]["state"] == "Present"
    assert snapshot["status"]["rewrittenAt"] >= snapshot["status"]["cleanedUntil"]
    assert [one.name for one in rehearsing.dumps.iterdir()] == [dump.name]
    text = subprocess.run(
        [f"{scratch.programs}/pg_restore", "-f", "-", dump], check=True, capture_output=True, text=True
    ).stdout
    assert "ada@canary" not in text
    assert "bob@canary" in text
    assert rehearsing.left() == set()
    assert "canary" not in json.dumps(api.list("restoredrills") + api.list("events"))


class Kubelet:
    """Runs the Jobs of a namespace here, as a node would, and says in their status how they end."""

    def __init__(self, api: Api, path: str) -> None:
        self._api, self._path, self._done = api, path, threading.Event()
        self.seen: dict[str, dict[str, Any]] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> "Kubelet":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        for process in self._processes.values():
            process.kill()
            process.wait()

    def _work(self) -> None:
        while not self._done.wait(0.1):
            with suppress(URLError, ConnectionError):  # a node lives on without its API server
                self._look()

    def _look(self) -> None:
        jobs = {one["metadata"]["name"]: one for one in self._api.list("jobs")}
        for name, job in jobs.items():
            if name not in self.seen:
                self.seen[name] = job
                self._processes[name] = self._begin(job)
            elif not (job.get("status") or {}).get("conditions"):
                self._end(name, self._processes[name].poll())
        for name in self.seen.keys() - jobs.keys():
            self._processes[name].kill()  # as a node ends the pods of a Job that is deleted

    def _begin(self, job: dict[str, Any]) -> subprocess.Popen[bytes]:
        (container,) = job["spec"]["template"]["spec"]["containers"]
        environment = {"PATH": self._path}
        for one in container["env"]:
            environment[one["name"]] = one.get("value") or self._of_secret(one["valueFrom"]["secretKeyRef"])
        return subprocess.Popen(container["command"], env=environment)

    def _of_secret(self, reference: dict[str, str]) -> str:
        secret = self._api.get("secrets", reference["name"])
        assert secret is not None
        return base64.b64decode(secret["data"][reference["key"]]).decode()

    def _end(self, name: str, code: int | None) -> None:
        if code is None:
            return
        at = {"startTime": "2026-11-29T04:00:00Z"}
        said = {"status": "True", "lastTransitionTime": "2026-11-29T04:00:01Z"}
        kinds = ("SuccessCriteriaMet", "Complete") if code == 0 else ("FailureTarget", "Failed")
        conditions = [{"type": kind, "reason": "BackoffLimitExceeded", **said} for kind in kinds]
        counted = {"succeeded": 1, "completionTime": "2026-11-29T04:00:01Z"} if code == 0 else {"failed": 1}
        body = {"status": {**at, **counted, "conditions": conditions}}
        path = f"{self._api.path('jobs', name)}/status"
        status, answer = self._api.call("PATCH", path, body, "application/merge-patch+json")
        assert status in (200, 404), answer


def a_job(line: str) -> dict[str, Any]:
    """Return a restore by a Job that runs a line of shell."""
    own = [{"name": "LETHE_SCRATCH_URL", "value": "postgresql://elsewhere"}, {"name": "OWN", "value": "kept"}]
    container = {"name": "restore", "image": "postgres:18", "command": ["sh", "-c", line], "env": own}
    return {"jobTemplate": {"spec": {"template": {"spec": {"containers": [container]}}}}}


def test_a_job_restores_and_goes_with_its_secret(
    rehearsing: Rehearsing, start_operator: StartOperator, scratch: PostgresServer
) -> None:
    rehearsing.begin(start_operator)
    api, programs = rehearsing.api, f"{scratch.programs}:{os.environ['PATH']}"
    restore = '[ "$OWN" = kept ] && pg_restore --no-owner --dbname="$LETHE_SCRATCH_URL"'
    with Kubelet(api, programs) as kubelet:
        rehearsing.apply(restore=a_job(f'{restore} "$LETHE_SNAPSHOT_PLACE/$LETHE_SNAPSHOT"'))
        assert rehearsing.ended()["result"] == "Passed", rehearsing.ended()
        rehearsing.apply("failing", restore=a_job("exit 3"))
        failed = rehearsing.ended("failing")
        rehearsing.apply("endless", restore=a_job("exec sleep 1000"), timeLimit="3s")
        endless = rehearsing.ended("endless")
    assert failed["result"] == "RestoreFailed"
    assert "failed (BackoffLimitExceeded)" in api.condition("restoredrills", "failing", "Passed")["message"]
    assert endless["result"] == "TimedOut"
    made = list(kubelet.seen.values())
    owners = [job["metadata"]["ownerReferences"] for job in made]
    assert [[one["kind"] for one in each] for each in owners] == [["RestoreDrill"]] * 3
    assert made[2]["spec"]["activeDeadlineSeconds"] == 3
    assert scratch.password not in json.dumps(made), "the password stands in a Job"

    def left(plural: str) -> list[str]:
        named = [one["metadata"]["name"].rpartition("-")[0] for one in api.list(plural)]
        return [one for one in named if one in ("sunday", "failing", "endless")]

    # A Job that failed stays for its logs; the Secret never does.
    eventually(lambda: left("jobs") == ["failing"], lambda: str(left("jobs")))
    assert left("secrets") == []
    assert made[1]["spec"]["ttlSecondsAfterFinished"] == 86400
    assert rehearsing.left() == set()


def left_of_jobs(api: Api) -> list[str]:
    """Return the Jobs and Secrets of drills that are there."""
    names = [one["metadata"]["name"] for plural in ("jobs", "secrets") for one in api.list(plural)]
    return [one for one in names if one.startswith("sunday-")]


PG_RESTORE = 'pg_restore --no-owner --dbname="$LETHE_SCRATCH_URL" "$LETHE_SNAPSHOT_PLACE/$LETHE_SNAPSHOT"'


def test_an_api_server_that_is_killed_while_a_job_restores_fails_no_drill_and_nothing_is_left(
    rehearsing: Rehearsing,
    start_operator: StartOperator,
    scratch: PostgresServer,
    control_plane: ControlPlane,
    tmp_path: Path,
) -> None:
    operator, api, goes_on = rehearsing.begin(start_operator), rehearsing.api, tmp_path / "goes-on"
    wait = f"touch {tmp_path}/runs; until [ -e {goes_on} ]; do sleep 0.1; done"
    with Kubelet(api, f"{scratch.programs}:{os.environ['PATH']}"):
        rehearsing.apply(restore=a_job(f"{wait}; {PG_RESTORE}"))
        eventually((tmp_path / "runs").exists, "the Job to run")
        control_plane.api_server.kill9()
        goes_on.touch()  # what restores needs no API server
        time.sleep(2.5)
        control_plane.start()
        assert rehearsing.ended()["result"] == "Passed", rehearsing.ended()
    assert operator.running
    eventually(lambda: left_of_jobs(api) == [], lambda: str(left_of_jobs(api)))
    assert rehearsing.left() == set()


KILLED = ("after append", "after create_secret", "after create", "before delete_secret", "before delete")
# Nine tenths of an operator's start are imports: each here is forked from a process that has made them.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.e2e.crashing", "lethe.adapters.stores.sql.store"])


@pytest.mark.slow
def test_an_operator_that_is_killed_at_any_step_of_a_job_leaves_nothing_that_the_next_does_not_clear(
    rehearsing: Rehearsing,
    start_operator: StartOperator,
    scratch: PostgresServer,
    control_plane: ControlPlane,
    tmp_path: Path,
) -> None:
    operator, api = rehearsing.begin(start_operator), rehearsing.api
    operator.kill9()
    environment = {
        "LETHE_KUBECONFIG": str(control_plane.kubeconfig_of("operator")),
        "LETHE_NAMESPACES": api.namespace,
        "LETHE_LEDGER_URL": f"sqlite:///{operator.ledger}",
        "LETHE_KEYS_DIR": str(operator.directory / "keys"),
        "LETHE_METRICS_ADDRESS": "127.0.0.1:0",
        "LETHE_STORE_HOSTS": "*,127.0.0.0/8,[::1]",
        "LETHE_LOG_FORMAT": "text",
        "LETHE_BACKUP_DIRECTORIES": str(rehearsing.dumps),
    }
    rehearsing.apply(restore=a_job(PG_RESTORE), runNow="0")
    with Kubelet(api, f"{scratch.programs}:{os.environ['PATH']}"):
        for moment in KILLED:
            api.patch_spec("restoredrills", "sunday", {"runNow": moment})
            fragile = FORKS.Process(
                target=crashing.run_forked,
                args=(environment, moment, tmp_path / "moments", tmp_path / "fragile.log"),
                daemon=True,
            )
            fragile.start()
            fragile.join(30)
            assert fragile.exitcode == -signal.SIGKILL, moment
        operator.start()
        eventually(lambda: rehearsing.ended()["result"] == "Passed", lambda: str(rehearsing.ended()), 60)
    eventually(lambda: left_of_jobs(api) == [], lambda: str(left_of_jobs(api)))
    assert rehearsing.left() == set()
    assert {one["result"] for one in rehearsing.ended()["history"]} == {"Passed", "Interrupted"}


def test_a_drill_gives_way_to_a_restore_that_a_person_begins_and_waits_for_its_end(
    rehearsing: Rehearsing, start_operator: StartOperator
) -> None:
    rehearsing.begin(start_operator)
    api, once = rehearsing.api, rehearsing.commands / "once"
    slow = f"mkdir {once} 2>/dev/null && sleep 1000; exec {rehearsing.commands}/pg-restore"
    rehearsing.command("slow", slow)
    rehearsing.apply(restore={"command": "slow"})
    eventually(once.exists, "the restore to have begun")
    begun = {"store": "site", "reason": "Drill", "justification": "the yearly one", "underway": "Begun"}
    api.create("restoreevents", "incident-42", begun)
    assert rehearsing.ended()["result"] == "GaveWay"
    assert rehearsing.left() == set()
    api.wait_reason("restoredrills", "sunday", "RestoreUnderway")
    api.patch_spec("restoreevents", "incident-42", {"underway": "Ended"})
    eventually(lambda: rehearsing.ended()["result"] == "Passed", lambda: str(rehearsing.ended()), 90)
    assert [one["result"] for one in rehearsing.ended()["history"]] == ["Passed", "GaveWay"]
