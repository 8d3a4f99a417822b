"""The same judgements on objects that the operator itself brought to where they stand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.company import SUBJECTS, Api, Site
from devtools.dumps import PATTERN, days_ago, leave_dump
from devtools.servers import MailServer, PostgresServer
from tests.e2e.conftest import StartOperator
from tests.gitops.judging import matched
from tests.gitops.states import ASKS, DONE, STUCK, WORKS, Verdict

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.stage2]

GAG = {"legalBasis": "18 U.S.C. 2705(b)", "until": "2099-02-20", "timeZone": "America/New_York"}
CURRENT, IN_PROGRESS, FAILED = "Current", "InProgress", "Failed"


class Judged:
    """Objects as they stood when they were seen, and what is to be made of each."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._seen: list[tuple[dict[str, object], Verdict, str]] = []

    def ready(self, plural: str, name: str, reason: str, verdict: Verdict, flux: str | None = None) -> None:
        """Wait until Ready has a reason, and keep the object."""
        seen = self._api.wait_reason(plural, name, reason, patience=60)
        self._seen.append((seen, verdict, flux or verdict.kstatus))

    def wrong(self) -> list[str]:
        """Return what is judged otherwise."""
        answers = matched([one for one, _, _ in self._seen])
        return [
            f"{one['kind']} {one['metadata']}: {answer}, not {verdict} and {flux}"
            for (one, verdict, flux), answer in zip(self._seen, answers, strict=True)
            if answer[:3] != (verdict.kstatus, flux, verdict.argo)
        ]


@pytest.fixture
def mail(tmp_path: Path) -> Iterator[MailServer]:
    with MailServer(tmp_path / "mail") as running:
        yield running


def test_what_the_operator_writes_is_judged_as_it_is_meant(
    api: Api,
    site: Site,
    mail: MailServer,
    start_operator: StartOperator,
    postgres: PostgresServer,
    tmp_path: Path,
) -> None:
    see = Judged(api)
    folders = {name: tmp_path / "backups" / name for name in ("nightly", "paused", "stopped")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    expired = leave_dump(folders["nightly"], days_ago(200))
    leave_dump(folders["nightly"], days_ago(30))
    leave_dump(folders["paused"], days_ago(210))
    leave_dump(folders["paused"], days_ago(20))
    leave_dump(folders["stopped"], days_ago(220))
    ada, bob, cleo, dora = site.sign_up(*(f"{name}@users.example" for name in ("ada", "bob", "cleo", "dora")))
    start_operator(
        LETHE_SMTP_URL=mail.url,
        LETHE_MAIL_FROM="Privacy <privacy@site.example>",
        LETHE_SCAN_INTERVAL="500ms",
        LETHE_BACKUP_DIRECTORIES=str(tmp_path / "backups"),
    )
    api.sql_store("site", site.url)
    see.ready("datastores", "site", "Available", DONE)

    for name, folder in folders.items():
        more = {"suspend": True} if name == "paused" else {}
        directory = {"path": str(folder), "name": PATTERN}
        api.create("backupsources", name, {"stores": ["site"], "directory": directory, **more})
        see.ready("backupsources", name, "Scanned", DONE)
    long = {"stores": ["site"], "retention": "P5Y", "directory": {"path": str(tmp_path), "name": PATTERN}}
    api.create("backupsources", "long", long)
    see.ready("backupsources", "long", "RetentionTooLong", STUCK)
    snapshots = {
        (one["spec"]["source"], one["spec"]["ref"]): one["metadata"]["name"]
        for one in api.list("backupsnapshots")
    }
    for (source, ref), name in snapshots.items():
        if ref == expired.name:
            see.ready("backupsnapshots", name, "Purged", DONE)
        elif source == "paused" and ref == min(path.name for path in folders["paused"].iterdir()):
            see.ready("backupsnapshots", name, "Overdue", WORKS)
        else:
            see.ready("backupsnapshots", name, "Retained", DONE)
    assert len(snapshots) == 5
    declared = {"store": "site", "reason": "Drill", "justification": "a drill, next week"}
    api.create("restoreevents", "drill", declared)
    see.ready("restoreevents", "drill", "Declared", WORKS, CURRENT)

    api.request_by_id("ada", ada)
    see.ready("deletionrequests", "ada", "Erased", DONE)
    api.request_by_id("plan", bob, dryRun=True)
    see.ready("deletionrequests", "plan", "Planned", DONE)
    api.request_by_email("nobody", "nobody@users.example")
    see.ready("deletionrequests", "nobody", "NothingFound", ASKS, CURRENT)
    reference = {"identifierSecretRef": {"name": "forgotten", "key": "email"}}
    api.create("deletionrequests", "forgotten", {"subject": reference})
    see.ready("deletionrequests", "forgotten", "SecretMissing", WORKS)
    api.delete("deletionrequests", "ada")
    api.request_by_id("ada", bob)
    see.ready("deletionrequests", "ada", "NameReused", STUCK)

    api.legal_request("le-bob", bob)
    see.ready("legalrequests", "le-bob", "Registered", DONE)
    api.legal_request("le-gag", dora, nonDisclosure=GAG)
    see.ready("legalrequests", "le-gag", "Registered", DONE)
    api.legal_request("le-nobody", 4711)
    see.ready("legalrequests", "le-nobody", "SubjectUnknown", ASKS, CURRENT)
    mail.refuse("dora@users.example", 550)
    api.legal_request("le-dora", dora)
    see.ready("legalrequests", "le-dora", "NoticeUndeliverable", STUCK)
    api.delete("legalrequests", "le-bob")
    api.legal_request("le-bob", cleo)
    see.ready("legalrequests", "le-bob", "NameReused", STUCK)

    api.legal_request("le-cleo", cleo, type="Preservation", preservation={})
    api.wait("legalrequests", "le-cleo", "Holding")
    see.ready("legalrequests", "le-cleo", "Registered", DONE)
    api.request_by_id("cleo", cleo)
    see.ready("deletionrequests", "cleo", "Held", ASKS, CURRENT)

    third = {"urlSecretRef": {"name": "none", "key": "url"}}
    api.create("datastores", "mailer", {"role": "Other", "owner": "ThirdParty", "sql": third})
    see.ready("datastores", "mailer", "ThirdParty", DONE)
    api.sql_store("crm", postgres.url("not_there"), role="CRM")
    see.ready("datastores", "crm", "Unreachable", WORKS)
    subjects = {**SUBJECTS, "key": "user_id"}
    api.sql_store("hrm", site.url, role="HRM", subjects=subjects)
    see.ready("datastores", "hrm", "MappingInvalid", STUCK)
    api.create(
        "datastores", "later", {"role": "Other", "owner": "Self", "sql": {**third, "subjects": subjects}}
    )
    see.ready("datastores", "later", "SecretMissing", WORKS)
    api.request_by_id("bob", bob)
    see.ready("deletionrequests", "bob", "StoreUnreachable", WORKS, CURRENT)

    assert see.wrong() == []
