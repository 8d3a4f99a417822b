"""Snapshots in a real restic repository, from end to end."""

import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from devtools.builds.restic.build import restic
from devtools.company import Api, eventually
from devtools.dumps import snapshot_states
from devtools.servers.controlplane import ControlPlane
from tests.e2e.set_clocks import ClockedOperator

pytestmark = pytest.mark.e2e

PASSWORD = "canary-phrase-of-restic-81"
SEVEN_MONTHS = timedelta(days=215)


class Repository:
    """A restic repository as the nightly job uses it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.restic("init")

    def restic(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """Run restic to its end."""
        environment = {
            "PATH": os.environ["PATH"],
            "RESTIC_REPOSITORY": str(self.folder),
            "RESTIC_PASSWORD": PASSWORD,
        }
        command = [str(restic()), "--no-cache", *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, check=True, env=environment).stdout

    def backup(self, taken_at: datetime, content: bytes) -> str:
        """Back a dump up, and return the snapshot's id."""
        said = self.restic(
            "backup",
            "--json",
            "--stdin",
            "--stdin-filename=/site.dump",
            "--host=db-1",
            f"--time={taken_at.astimezone():%Y-%m-%d %H:%M:%S}",
            stdin=content,
        )
        identity: str = json.loads(said.splitlines()[-1])["snapshot_id"]
        return identity

    def packs(self) -> set[str]:
        """Return the files that hold what was backed up, each named by its digest."""
        return {path.name for path in (self.folder / "data").rglob("*") if path.is_file()}


def test_an_old_snapshot_is_forgotten_and_pruned_and_the_new_one_restores(
    api: Api, tmp_path: Path, control_plane: ControlPlane, namespace: str
) -> None:
    repository = Repository(tmp_path / "restic")
    now = datetime.now(UTC).replace(microsecond=0)
    old = repository.backup(now, os.urandom(50_000))
    old_packs = repository.packs()
    # When the program really ran is evidence: what `--time` states alone makes no snapshot old.
    claimed = repository.backup(now - SEVEN_MONTHS, os.urandom(50_000))
    environment = {
        "LETHE_BACKUP_DIRECTORIES": str(tmp_path),
        "PATH": f"{restic().parent}:{os.environ['PATH']}",
        "LETHE_SCAN_INTERVAL": "1s",
    }
    with ClockedOperator(tmp_path / "operator", control_plane, namespace, environment) as operator:
        operator.start()
        api.secret("restic", {"RESTIC_PASSWORD": PASSWORD})
        source = {
            "repository": str(repository.folder),
            "host": "db-1",
            "paths": ["/site.dump"],
            "credentialsSecretRef": {"name": "restic"},
        }
        api.create("backupsources", "nightly", {"stores": ["site"], "restic": source})
        present = {old: "Present", claimed: "Present"}
        eventually(lambda: snapshot_states(api) == present, lambda: str(api.list("backupsources")))
        operator.stop()
        content = os.urandom(50_000)
        fresh = repository.backup(now + SEVEN_MONTHS - timedelta(days=1), content)

        operator.restart_in(SEVEN_MONTHS)

        states = {old: "Purged", claimed: "Purged", fresh: "Present"}
        eventually(lambda: snapshot_states(api) == states, lambda: str(api.list("backupsources")), 60)
        api.wait("backupsources", "nightly", "RetentionEffective")
        assert PASSWORD not in operator.log.read_text()
    listed = [snapshot["id"] for snapshot in json.loads(repository.restic("snapshots", "--json"))]
    assert listed == [fresh]
    assert not repository.packs() & old_packs, "the bytes are gone, not only the id"
    repository.restic("check", "--read-data")
    assert repository.restic("dump", fresh, "/site.dump") == content
