"""A backup is put back and nobody tells Lethe."""

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from devtools.company import Api, Site, eventually
from devtools.operator_process import OperatorProcess
from devtools.servers.postgres import PostgresServer
from lethe.domain.periods import instant


def database_of(site: Site) -> str:
    """Return the name of the site's database."""
    return site.url.rpartition("/")[2].partition("?")[0]


@pytest.mark.parametrize("options", [["--clean", "--if-exists"], ["--clean", "--if-exists", "-j2"]])
def test_what_a_restore_brings_back_is_erased_again_and_nobody_else(
    api: Api,
    site: Site,
    operator: OperatorProcess,
    postgres: PostgresServer,
    tmp_path: Path,
    options: list[str],
) -> None:
    early, ada, bob, cleo = site.sign_up(*(f"{n}@canary.example" for n in ("early", "ada", "bob", "cleo")))
    api.sql_store("site", site.url)
    api.wait("datastores", "site", "SafeToServe")
    api.request_by_id("early", early)
    api.wait("deletionrequests", "early", "Erased")
    dump = tmp_path / "site.dump"
    postgres.dump(database_of(site), dump)
    api.request_by_id("ada", ada)
    api.request_by_email("bob", "bob@canary.example")
    for name in ("ada", "bob"):
        api.wait("deletionrequests", name, "Erased")

    postgres.restore(database_of(site), dump, *options)

    eventually(lambda: bool(api.list("restoreevents")), "a RestoreEvent", 60)
    name = api.list("restoreevents")[0]["metadata"]["name"]
    event = api.wait("restoreevents", name, "SafeToServe", patience=60)
    assert site.is_cleared(early)
    assert site.is_cleared(ada)
    assert site.is_cleared(bob)
    assert site.is_intact(cleo)
    assert event["spec"]["reason"] == "Undeclared"
    assert event["status"]["detectedBy"] == "Journal"
    replay = dict(event["status"]["replay"])
    erased_at = (api.get("deletionrequests", "ada") or {})["status"]["erasedAt"]
    assert erased_at <= replay.pop("missingSince") <= event["status"]["safeToServeAt"]
    assert {one["table"]: one["rows"] for one in replay.pop("tables")} == {
        "users": 2,
        "sessions": 2,
        "comments": 2,
    }
    assert replay == {"missing": 2, "reErased": 2, "leftAlone": 0, "unclear": 0}
    api.wait("datastores", "site", "SafeToServe")
    assert api.condition("restoreevents", name, "Permitted")["status"] == "False"
    api.patch_spec("restoreevents", name, {"reason": "Drill", "justification": "we tried it out"})
    api.wait("restoreevents", name, "Permitted")


def test_somebody_who_signs_up_after_the_restore_under_an_erased_key_is_left_alone(
    api: Api, site: Site, operator: OperatorProcess, postgres: PostgresServer, tmp_path: Path
) -> None:
    site.sign_up("ada@canary.example")
    api.sql_store("site", site.url)
    api.wait("datastores", "site", "SafeToServe")
    dump = tmp_path / "site.dump"
    postgres.dump(database_of(site), dump)
    (bob,) = site.sign_up("bob@canary.example")
    api.request_by_id("bob", bob)
    api.wait("deletionrequests", "bob", "Erased")
    operator.stop()
    postgres.restore(database_of(site), dump, "--clean", "--if-exists")
    (newcomer,) = site.sign_up("bob@canary.example")
    assert newcomer == bob, "the restored sequence gives the key out again"
    operator.start()
    eventually(lambda: bool(api.list("restoreevents")), "a RestoreEvent", 60)
    name = api.list("restoreevents")[0]["metadata"]["name"]
    event = api.wait("restoreevents", name, "SafeToServe", patience=60)
    assert site.is_intact(newcomer)
    assert event["status"]["replay"]["leftAlone"] == 1


def test_a_write_back_is_erased_again_without_closing_the_gate(
    api: Api, site: Site, operator: OperatorProcess
) -> None:
    (ada,) = site.sign_up("ada@canary.example")
    api.sql_store("site", site.url)
    api.request_by_id("ada", ada)
    api.wait("deletionrequests", "ada", "Erased")
    site.sql("UPDATE users SET first_name = 'Ada' WHERE id = %s", ada)
    eventually(lambda: site.is_cleared(ada), "the write-back to be erased again")
    eventually(lambda: operator.metric("lethe_store_resurrected_total") >= 1, "the write-back to be counted")
    assert api.list("restoreevents") == []
    assert api.condition("datastores", "site", "SafeToServe")["status"] == "True"
    said = f"1 records of erased people (users {ada}) were written back"
    eventually(
        lambda: said in str(api.condition("datastores", "site", "Ready")["message"]), "the status to say it"
    )
    site.sql("UPDATE users SET first_name = 'Ada' WHERE id = %s", ada)
    eventually(lambda: site.is_cleared(ada), "it to be erased again once more")
    told = [event["note"] for event in api.list("events") if event["reason"] == "WrittenBackAgain"]
    assert len(told) == 1, "once of each record"
    assert said in told[0]


def test_who_comes_back_herself_is_left_alone_once_a_person_has_said_so(
    api: Api, site: Site, operator: OperatorProcess
) -> None:
    (ada,) = site.sign_up("ada@canary.example")
    api.sql_store("site", site.url)
    api.request_by_id("ada", ada)
    proof = api.wait("deletionrequests", "ada", "Erased")["status"]["stores"]
    again = {"table": "users", "key": str(ada), "because": "CRM-7"}
    time.sleep(1.1)  # what is said of the second in which she asked tells no order
    since = instant(datetime.now(UTC))
    api.patch_spec("datastores", "site", {"rejoined": [{**again, "key": "7777", "since": since}]})
    eventually(
        lambda: (
            "of users 7777 spec.rejoined says for nothing"
            in str(api.condition("datastores", "site", "Ready")["message"])
        ),
        "the status to tell a mistake",
    )
    api.patch_spec("datastores", "site", {"rejoined": [{**again, "since": since}]})
    ready = "connected, and its mapping fits the schema"
    eventually(
        lambda: api.condition("datastores", "site", "Ready")["message"] == ready, "the status to be well"
    )
    site.sql("UPDATE users SET first_name = 'Ada' WHERE id = %s", ada)
    for start_anew in (False, True):
        if start_anew:
            operator.stop()
            operator.start()
        seen = swept_at(api)
        eventually(lambda seen=seen: swept_at(api) != seen, "a sweep", 60)  # type: ignore[misc]
        assert site.sql("SELECT first_name FROM users WHERE id = %s", ada) == [("Ada",)]
    assert api.wait("deletionrequests", "ada", "Erased")["status"]["stores"] == proof
    assert api.condition("datastores", "site", "SafeToServe")["status"] == "True"


def swept_at(api: Api) -> str:
    """Return when the store was last swept, as its status tells."""
    return str(api.wait("datastores", "site", "Ready")["status"]["lastSweptAt"])
