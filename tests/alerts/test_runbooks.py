"""What the runbooks tell one to type is taken by a real API server."""

import re
import shlex
from collections.abc import Iterator

import pytest

from devtools.company import Api
from devtools.servers import CommandFailed, ControlPlane
from tests.alerts.rules import RUNBOOKS
from tests.e2e.conftest import api

__all__ = ["api"]  # a fixture

NEEDS_A_POD = ("logs", "exec", "rollout")
"""Subcommands that no API server without nodes can answer; tests/node runs an operator in a pod."""

ARCHIVE = {"directory": {"path": "/backups", "name": "{takenAt:%Y%m%d}.dump"}}
SUBJECT = {"id": "4711"}
AUTHORITY = {"name": "County Sheriff's Office", "level": "Local", "country": "US"}


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield the kubectl commands of all runbooks, without `kubectl`, and where each stands."""
    for page in sorted(RUNBOOKS.glob("*.md")):
        for line in re.findall(r"^    (kubectl .*)$", page.read_text(), re.MULTILINE):
            yield page.stem, shlex.split(line)[1:]


@pytest.fixture
def troubled(api: Api, control_plane: ControlPlane) -> Api:
    """A namespace with an object `site` of each kind, and a pod, as an alert may speak of."""
    control_plane.kubectl("create", "serviceaccount", "default", "-n", api.namespace)
    control_plane.kubectl("run", "site", "-n", api.namespace, "--image=site")
    api.sql_store("site", "postgresql://nowhere.example/site")
    api.create("deletionrequests", "site", {"subject": SUBJECT})
    api.create("restoreevents", "site", {"store": "site", "reason": "Undeclared", "underway": "Begun"})
    api.create("backupsources", "site", {"stores": ["site"], **ARCHIVE})
    scratch = {"urlSecretRef": {"name": "site-db", "key": "url"}}
    how = {"scratch": scratch, "restore": {"command": "restore"}, "schedule": "0 4 * * SUN"}
    api.create("restoredrills", "site", {"source": "site", **how})
    legal = {"type": "Disclosure", "authority": AUTHORITY, "receivedAt": "2026-11-22T10:00:00Z"}
    forbids = {"nonDisclosure": {"legalBasis": "18 U.S.C. 2705(b)"}}
    api.create("legalrequests", "site", {**legal, "subject": SUBJECT, **forbids})
    return api


def test_every_runbook_says_what_to_type() -> None:
    assert {page for page, _ in commands()} == {page.stem for page in RUNBOOKS.glob("Lethe*.md")}


def test_a_real_api_server_takes_every_command(troubled: Api, control_plane: ControlPlane) -> None:
    meant = {"NAMESPACE": troubled.namespace, "lethe-system": troubled.namespace, "NAME": "site"}
    for page, command in commands():
        if any(word in NEEDS_A_POD for word in command):
            continue
        given = [meant.get(word, word) for word in command]
        try:
            control_plane.kubectl(*given, *(["--dry-run=server"] if "patch" in given else []))
        except CommandFailed as refused:
            pytest.fail(f"{page}: kubectl {shlex.join(command)}: {refused.stderr}")
