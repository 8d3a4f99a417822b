"""What the examples show is true: their manifests are accepted, and the demo keeps what it promises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.servers.controlplane import ControlPlane
from examples.quickstart.looking import is_well

CHECKOUT = Path(__file__).resolve().parents[2]
QUICKSTART = CHECKOUT / "examples" / "quickstart"
MANIFESTS = sorted(QUICKSTART.rglob("*.yaml"))


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda file: str(file.relative_to(QUICKSTART)))
def test_the_api_server_accepts_every_manifest_of_the_examples(
    control_plane: ControlPlane, manifest: Path
) -> None:
    namespace = "privacy"
    if not control_plane.kubectl("get", "namespace", namespace, "--ignore-not-found"):
        control_plane.kubectl("create", "namespace", namespace)
    said = control_plane.kubectl("apply", "--server-side", "--dry-run=server", "--filename", str(manifest))
    assert said.count("serverside-applied (server dry run)") == manifest.read_text().count("\nkind: ")


def test_there_are_manifests_to_accept() -> None:
    assert len(MANIFESTS) >= 10


WHEN = "2026-11-29 03:33:44,171"


@pytest.mark.parametrize(
    ("line", "well"),
    [
        (f"{WHEN} INFO    lethe: ledger 51290a9d, serving privacy", True),
        (f"{WHEN} WARNING lethe.restores: store privacy/site went back in time", True),
        (f"{WHEN} ERROR   lethe.bootstrap: the CRDs are older", False),
        (f"{WHEN} ERROR   asyncio: Future exception was never retrieved", False),
        (f"{WHEN} WARNING kopf._cogs.clients.watching: Request attempt #6/100 failed", False),
        ("/site/clearings.py:204: SAWarning: Column-expression-level unary distinct()", False),
        ("Traceback (most recent call last):", False),
    ],
)
def test_the_demo_tells_which_lines_of_a_log_are_trouble(line: str, well: bool) -> None:
    assert is_well(line) is well


@pytest.mark.slow
def test_the_demo_keeps_what_it_promises_and_leaves_nothing_behind(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    told = subprocess.run(
        [sys.executable, CHECKOUT / "examples/quickstart/demo.py"],
        env={**environment, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert told.returncode == 0, told.stdout[-6000:] + told.stderr[-2000:]
    account = told.stdout.partition("What was promised, and what was seen")[2]
    assert account.count("✓") == 25
    assert "✗" not in account
    assert "Everything was as promised." in account
    assert list(tmp_path.iterdir()) == []
    assert _processes_that_mention(tmp_path) == []


def _processes_that_mention(directory: Path) -> list[str]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended meanwhile
        if str(directory) in words:
            found.append(words)
    return found
