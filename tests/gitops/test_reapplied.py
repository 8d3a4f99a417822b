"""The same manifests a hundred times, and pruned and made anew: nothing happens that has not happened."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools.company import SUBJECTS, Api, Site, eventually
from devtools.dumps import PATTERN, days_ago, leave_dump
from devtools.operator_process import OperatorProcess
from devtools.servers import ControlPlane, MailServer
from lethe.api.v1alpha1 import KINDS
from tests.e2e.conftest import StartOperator

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.stage2]

TIMES = 100
PLURALS = [kind.definition.plural for kind in KINDS]
APPLYING = {
    "server-side": ("apply", "--server-side", "--field-manager=gitops"),
    "client-side": ("apply",),
}


@pytest.fixture
def mail(tmp_path: Path) -> Iterator[MailServer]:
    with MailServer(tmp_path / "mail") as running:
        yield running


def manifest(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "lethe.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def manifests(ada: int, cleo: int, dumps: Path) -> list[dict[str, Any]]:
    """Return what lies in Git: something of every kind that a person writes."""
    authority = {"name": "County Sheriff's Office", "level": "Local", "country": "US"}
    legal = {"authority": authority, "receivedAt": "2026-11-22T10:00:00Z", "subject": {"id": str(cleo)}}
    by_secret = {"identifierSecretRef": {"name": "bob", "key": "email"}}
    sql = {"urlSecretRef": {"name": "site-db", "key": "url"}, "subjects": SUBJECTS}
    directory = {"path": str(dumps), "name": PATTERN}
    drill = {"store": "site", "reason": "Drill", "justification": "next week"}
    return [
        manifest("DataStore", "site", {"role": "Primary", "owner": "Self", "sql": sql}),
        manifest("BackupSource", "nightly", {"stores": ["site"], "retention": "P6M", "directory": directory}),
        manifest("DeletionRequest", "ada", {"subject": {"id": str(ada)}}),
        manifest("DeletionRequest", "bob", {"subject": by_secret}),
        manifest("DeletionRequest", "plan", {"subject": {"id": str(cleo)}, "dryRun": True}),
        manifest("DeletionRequest", "nobody", {"subject": {"id": "99999"}}),
        manifest("LegalRequest", "le-1", {"type": "Disclosure", **legal}),
        manifest("LegalRequest", "le-2", {"type": "Preservation", "preservation": {}, **legal}),
        manifest("DeletionRequest", "cleo", {"subject": {"id": str(cleo)}}),
        manifest("RestoreEvent", "drill", drill),
    ]


def everything(api: Api) -> dict[str, dict[str, Any]]:
    """Return every object of ours and every event, by kind and name."""
    found = {f"{plural}/{one['metadata']['name']}": one for plural in PLURALS for one in api.list(plural)}
    events = api.call("GET", f"/apis/events.k8s.io/v1/namespaces/{api.namespace}/events")[1]["items"]
    return found | {f"events/{one['metadata']['name']}": one for one in events}


class Sentinels:
    """Persons erased in between: once one is, the operator has heard of all that was applied before."""

    def __init__(self, api: Api, site: Site) -> None:
        self._api, self._site, self._number = api, site, 0

    def one_more(self) -> None:
        """Have another person erased."""
        self._number += 1
        (key,) = self._site.sign_up(f"more-{self._number}@users.example")
        self._api.request_by_id(f"more-{self._number}", key)
        self._api.wait("deletionrequests", f"more-{self._number}", "Erased")


def entries(operator: OperatorProcess) -> list[tuple[int, str]]:
    """Return position and kind of what the ledger holds, apart from what is about the sentinels."""
    with sqlite3.connect(operator.ledger) as connection:
        return connection.execute(
            "SELECT sequence, kind FROM entries WHERE request IS NULL OR request NOT IN "
            "(SELECT request FROM requests WHERE name LIKE 'more-%') ORDER BY sequence"
        ).fetchall()


@pytest.mark.parametrize("way", APPLYING)
def test_the_same_manifests_a_hundred_times_and_pruned_and_made_anew(
    api: Api,
    site: Site,
    mail: MailServer,
    start_operator: StartOperator,
    control_plane: ControlPlane,
    tmp_path: Path,
    way: str,
) -> None:
    ada, _, cleo = site.sign_up("ada@users.example", "bob@users.example", "cleo@users.example")
    dumps = tmp_path / "dumps"
    dumps.mkdir()
    for days in (200, 30):
        leave_dump(dumps, days_ago(days))
    operator = start_operator(
        LETHE_SMTP_URL=mail.url,
        LETHE_MAIL_FROM="Privacy <privacy@site.example>",
        LETHE_SCAN_INTERVAL="1s",
        LETHE_BACKUP_DIRECTORIES=str(dumps),
    )
    api.secret("site-db", {"url": site.url})
    api.secret("bob", {"email": "bob@users.example"}, "lethe.dev/identifier")
    in_git = manifests(ada, cleo, dumps)

    def apply(times: int) -> str:
        stream = "\n".join(json.dumps(one) for one in in_git)
        said = control_plane.kubectl(
            *APPLYING[way], "--namespace", api.namespace, "--filename=-", input=f"{stream}\n" * times
        )
        assert len(said.splitlines()) == times * len(in_git)
        return said

    # Stores and backups first: who is held is not erased, and a snapshot that is held is not pruned.
    in_git, later = in_git[:6], in_git[6:]
    apply(1)
    for name, kind in (("ada", "Erased"), ("bob", "Erased")):
        api.wait("deletionrequests", name, kind)
    api.wait_reason("deletionrequests", "plan", "Planned")
    api.wait_reason("deletionrequests", "nobody", "NothingFound")
    api.wait_reason("backupsources", "nightly", "Scanned")
    eventually(
        lambda: (
            {"Purged", "Present"}
            == {one.get("status", {}).get("state") for one in api.list("backupsnapshots")}
        ),
        "one snapshot to be purged and one present",
    )
    in_git = [*in_git, *later[:2]]
    apply(1)
    api.wait("legalrequests", "le-1", "UserInformed")
    api.wait("legalrequests", "le-2", "Holding")
    api.wait("legalrequests", "le-2", "UserInformed")
    in_git = [*in_git, *later[2:]]
    apply(1)
    api.wait_reason("deletionrequests", "cleo", "Held")
    api.wait_reason("restoreevents", "drill", "Declared")
    sentinels = Sentinels(api, site)
    sentinels.one_more()
    api.wait("datastores", "site", "StatisticsRenewed")
    letters, ledger = len(mail.messages()), entries(operator)
    assert len(ledger) > 10

    # A hundred times: not an object, not an event, not an entry in the ledger.
    before, heard = everything(api), sum(1 for _ in control_plane.audit_events())
    apply(TIMES)
    sentinels.one_more()
    after = everything(api)
    assert {name: after[name] for name in before} == before
    assert {name for name in after.keys() - before.keys() if "more-" not in name} == set()
    assert _writes(control_plane, api, since=heard) == []
    assert entries(operator) == ledger

    # Pruned, and made anew as Argo CD does: everything is as it was, and no entry in the ledger tells of it.
    for one in reversed(in_git[1:]):
        api.delete(f"{one['kind'].lower()}s", one["metadata"]["name"])
    sentinels.one_more()  # takes a store
    assert entries(operator) == ledger
    api.delete("datastores", "site")
    # Whoever keeps the address elsewhere brings its Secret back, too.
    api.secret("bob", {"email": "bob@users.example"}, "lethe.dev/identifier")
    apply(1)
    told = _statuses(before)
    eventually(
        lambda: _statuses(everything(api)).items() >= told.items(),
        lambda: f"{told}; it is {_statuses(everything(api))}",
        60,
    )
    eventually(lambda: api.get("secrets", "bob") is None, "the Secret that came back to be deleted again")
    sentinels.one_more()
    assert entries(operator) == ledger
    assert len(mail.messages()) == letters
    assert site.is_intact(cleo)
    assert sorted(path.name for path in dumps.iterdir()) == [
        one["spec"]["ref"] for one in api.list("backupsnapshots") if one["status"]["state"] == "Present"
    ]


def _writes(control_plane: ControlPlane, api: Api, *, since: int) -> list[str]:
    """Return what the operator wrote in the namespace, apart from the requests that it was asked for."""
    written = []
    for number, event in enumerate(control_plane.audit_events()):
        about = event.get("objectRef", {})
        if (
            number >= since
            and event["user"]["username"] == "operator"
            and event["verb"] not in ("get", "list", "watch")
            and about.get("namespace") == api.namespace
            and not str(about.get("name", "")).startswith("more-")
        ):
            written.append(f"{event['verb']} {about.get('resource')} {about.get('name')}")
    return written


def _statuses(objects: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return what the objects that people wrote say of themselves, without what moves or counts lookups."""
    kept = ("state", "acceptedAt", "dueAt", "erasedAt", "ledger", "decision", "notice", "hold", "replay")
    return {
        name: json.dumps(
            [
                *(one.get("status", {}).get(key) for key in kept),
                sorted(
                    (c["type"], c["status"], c["reason"]) for c in one.get("status", {}).get("conditions", ())
                ),
            ],
            sort_keys=True,
        )
        for name, one in objects.items()
        if not name.startswith(("events/", "deletionrequests/more-"))
    }
