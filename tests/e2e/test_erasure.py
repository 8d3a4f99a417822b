"""One DeletionRequest after the other, as support and GitOps apply them."""

import json
import time
from pathlib import Path
from typing import Any

from devtools.company import Api, Site, eventually, store_states
from devtools.operator_process import OperatorProcess
from devtools.servers.controlplane import ControlPlane
from devtools.servers.postgres import PostgresServer


def test_a_person_named_by_id_is_erased_and_everybody_else_is_not(
    api: Api, site: Site, operator: OperatorProcess
) -> None:
    ada, bob = site.sign_up("ada@canary.example", "bob@canary.example")
    api.sql_store("site", site.url)
    api.wait("datastores", "site", "Ready")
    api.request_by_id("r1", ada)
    request = api.wait("deletionrequests", "r1", "Erased")
    assert site.is_cleared(ada)
    assert site.is_intact(bob)
    assert request["status"]["state"] == "Erased"
    assert request["status"]["stores"][0]["erased"] == {"comments": 1, "sessions": 1, "users": 1}
    assert api.condition("deletionrequests", "r1", "Ready")["status"] == "True"
    assert request["status"]["ledger"]["digest"].startswith("sha256:")


def test_a_person_named_by_a_secret_is_erased_and_the_secret_is_gone(
    api: Api, site: Site, operator: OperatorProcess
) -> None:
    (ada,) = site.sign_up("Ada@Canary.Example")
    api.sql_store("site", site.url)
    api.request_by_email("r1", " ada@canary.example\n")
    api.wait("deletionrequests", "r1", "Erased")
    assert site.is_cleared(ada)
    assert api.get("secrets", "r1") is None


def test_a_secret_that_comes_back_is_deleted_again_with_a_warning(
    api: Api, site: Site, operator: OperatorProcess, postgres: PostgresServer
) -> None:
    (ada,) = site.sign_up("ada@canary.example")
    api.sql_store("site", site.url)
    api.sql_store("crm", postgres.url("not_there_yet_either"), role="CRM")  # it keeps the request open
    api.request_by_email("r1", "ada@canary.example")
    api.wait_reason("deletionrequests", "r1", "StoreUnreachable")
    eventually(lambda: api.get("secrets", "r1") is None, "the Secret to be deleted")
    assert _returned(api) == []
    request = api.get("deletionrequests", "r1") or {}

    time.sleep(1.1)  # the API server dates objects by whole seconds
    api.secret("r1", {"email": "ada@canary.example"}, "lethe.dev/identifier")
    # As a GitOps tool does it: the request is applied again with its Secret. Else the next list sees it.
    api.delete("deletionrequests", "r1")
    api.create("deletionrequests", "r1", request["spec"])
    eventually(lambda: api.get("secrets", "r1") is None, "the Secret to be deleted again")
    eventually(lambda: len(_returned(api)) == 1, "a warning")
    (warned,) = _returned(api)
    assert warned["type"] == "Warning"
    assert "Secret r1 came back" in warned["note"]
    assert "canary" not in warned["note"]
    Site(postgres.create_database("not_there_yet_either"))
    api.wait("deletionrequests", "r1", "Erased", patience=60)
    assert site.is_cleared(ada)

    api.secret("r1", {"email": "ada@canary.example"}, "lethe.dev/identifier")
    api.delete("deletionrequests", "r1")
    api.create("deletionrequests", "r1", request["spec"])
    eventually(lambda: api.get("secrets", "r1") is None, "the Secret of an ended request to be deleted")
    eventually(lambda: len(_returned(api)) == 2, "one more warning")


def test_requests_that_are_deleted_as_soon_as_they_are_made_end_nothing(
    api: Api, site: Site, operator: OperatorProcess
) -> None:
    api.sql_store("site", site.url)
    (ada,) = site.sign_up("ada@canary.example")
    for number in range(60):
        api.request_by_id(f"r{number}", 1_000_000 + number)
        api.delete("deletionrequests", f"r{number}")
    api.request_by_id("ada", ada)
    api.wait("deletionrequests", "ada", "Erased", patience=60)
    assert operator.running


def _returned(api: Api) -> list[dict[str, Any]]:
    return [event for event in api.list("events") if event["reason"] == "SecretReturned"]


def test_a_dry_run_says_what_would_be_erased_and_changes_nothing(
    api: Api, site: Site, operator: OperatorProcess
) -> None:
    (ada,) = site.sign_up("ada@canary.example")
    api.sql_store("site", site.url)
    api.request_by_id("r1", ada, dryRun=True)
    request = api.wait_reason("deletionrequests", "r1", "Planned")
    assert request["status"]["stores"][0]["erased"] == {"comments": 1, "sessions": 1, "users": 1}
    assert api.condition("deletionrequests", "r1", "Erased")["status"] == "False"
    assert site.is_intact(ada)


def test_whom_no_store_knows_is_not_called_erased_until_a_person_confirms(
    api: Api, site: Site, operator: OperatorProcess
) -> None:
    site.sign_up("ada@canary.example")
    api.sql_store("site", site.url)
    api.request_by_email("r1", "adda@canary.example")
    request = api.wait_reason("deletionrequests", "r1", "NothingFound")
    assert request["status"]["state"] != "Erased"
    api.patch_spec("deletionrequests", "r1", {"confirmed": ["NothingFound"]})
    api.wait("deletionrequests", "r1", "Erased")


def test_a_store_that_is_down_delays_only_itself(
    api: Api, site: Site, operator: OperatorProcess, postgres: PostgresServer
) -> None:
    (ada,) = site.sign_up("ada@canary.example")
    api.sql_store("site", site.url)
    url = postgres.url("not_there_yet")
    api.sql_store("crm", url, role="CRM")
    api.request_by_id("r1", ada)
    request = api.wait_reason("deletionrequests", "r1", "StoreUnreachable")
    eventually(lambda: site.is_cleared(ada), "the primary to be erased although the CRM is down")
    assert store_states(api.get("deletionrequests", "r1") or {})["crm"] == "Unreachable"
    assert "crm" in api.condition("deletionrequests", "r1", "Ready")["message"]
    assert request["status"]["state"] == "Erasing"
    postgres.create_database("not_there_yet")
    crm = Site(url)
    (contact,) = crm.sign_up("ada@canary.example")
    api.wait("deletionrequests", "r1", "Erased", patience=60)
    assert crm.is_cleared(contact)


def test_the_same_manifest_again_is_the_same_erasure_with_its_original_times(
    api: Api, site: Site, operator: OperatorProcess
) -> None:
    (ada,) = site.sign_up("ada@canary.example")
    api.sql_store("site", site.url)
    api.request_by_id("r1", ada)
    first = api.wait("deletionrequests", "r1", "Erased")["status"]
    entries = first["ledger"]["sequence"]
    api.delete("deletionrequests", "r1")
    api.request_by_id("r1", ada)
    again = api.wait("deletionrequests", "r1", "Erased")["status"]
    kept = ("acceptedAt", "erasedAt", "dueAt", "stores", "ledger", "state")
    assert {key: again[key] for key in kept} == {key: first[key] for key in kept}
    eventually(lambda: operator.metric("lethe_ledger_head") == entries, "no further entry in the ledger")


def test_another_person_under_a_known_name_is_refused_and_nothing_is_claimed(
    api: Api, site: Site, operator: OperatorProcess
) -> None:
    ada, bob = site.sign_up("ada@canary.example", "bob@canary.example")
    api.sql_store("site", site.url)
    api.request_by_id("r1", ada)
    api.wait("deletionrequests", "r1", "Erased")
    api.delete("deletionrequests", "r1")
    api.request_by_id("r1", bob)
    request = api.wait_reason("deletionrequests", "r1", "NameReused")
    assert request["status"]["state"] == "Stalled"
    assert "erasedAt" not in request["status"]
    assert site.is_intact(bob)


def test_an_edited_request_is_refused_at_admission(api: Api, site: Site, operator: OperatorProcess) -> None:
    ada, bob = site.sign_up("ada@canary.example", "bob@canary.example")
    api.sql_store("site", site.url)
    api.request_by_id("r1", ada)
    status, body = api.patch_spec("deletionrequests", "r1", {"subject": {"id": str(bob)}})
    assert status == 422
    assert "can't be changed" in body["message"]


def test_a_second_request_for_an_erased_person_is_erased_as_well(
    api: Api, site: Site, operator: OperatorProcess
) -> None:
    (ada,) = site.sign_up("ada@canary.example")
    api.sql_store("site", site.url)
    api.request_by_email("r1", "ada@canary.example")
    api.wait("deletionrequests", "r1", "Erased")
    api.request_by_email("r2", "ada@canary.example")
    api.wait("deletionrequests", "r2", "Erased")
    api.request_by_id("r3", ada)
    api.wait("deletionrequests", "r3", "Erased")
    assert "earlier request" in api.condition("deletionrequests", "r3", "Ready")["message"]


def test_one_poisoned_record_does_not_stop_the_others(
    api: Api, site: Site, operator: OperatorProcess
) -> None:
    keys = site.sign_up(*(f"p{n}@canary.example" for n in range(6)))
    api.sql_store("site", site.url)
    api.wait("datastores", "site", "Ready")
    site.sql(
        f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF NEW.id = {keys[3]} THEN RAISE EXCEPTION 'frozen %%', OLD.email; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER refuse BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION refuse();".replace(
            "%%", "%"
        )
    )
    for number, key in enumerate(keys):
        api.request_by_id(f"r{number}", key)
    for number in (0, 1, 2, 4, 5):
        api.wait("deletionrequests", f"r{number}", "Erased")
    stalled = api.wait_reason("deletionrequests", "r3", "ValueRefused")
    assert stalled["status"]["state"] == "Stalled"
    assert "canary" not in json.dumps(stalled)
    site.sql("DROP TRIGGER refuse ON users")
    api.wait("deletionrequests", "r3", "Erased", patience=60)


def test_a_third_party_is_never_asked(
    api: Api, site: Site, operator: OperatorProcess, postgres: PostgresServer
) -> None:
    (ada,) = site.sign_up("ada@canary.example")
    api.sql_store("site", site.url)
    sql = {"urlSecretRef": {"name": "none", "key": "url"}}
    api.create("datastores", "mailer", {"role": "Other", "owner": "ThirdParty", "sql": sql})
    api.wait("datastores", "mailer", "Ready")
    api.request_by_id("r1", ada)
    request = api.wait("deletionrequests", "r1", "Erased")
    assert store_states(request) == {"mailer": "ThirdParty", "site": "Verified"}


def test_a_store_that_died_between_intent_and_erasure_can_be_given_up(
    api: Api, site: Site, operator: OperatorProcess, tmp_path: Path
) -> None:
    with PostgresServer(tmp_path / "crm", fsync=False) as server:
        crm = Site(server.create_database("crm"))
        people = [f"{name}@canary.example" for name in ("ada", "cleo")]
        site.sign_up(*people)
        crm.sign_up(people[0])
        crm.sql(
            "CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_sleep(300); RETURN NEW; END $$;"
            "CREATE TRIGGER hang BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION hang();"
        )
        api.sql_store("site", site.url)
        api.sql_store("crm", crm.url, role="CRM")
        api.wait("datastores", "crm", "SafeToServe")
        api.request_by_email("ada", people[0])
        hangs = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        eventually(lambda: bool(crm.sql(hangs)), "the erasure to have begun")
    api.wait_reason("datastores", "crm", "Unreachable", patience=60)
    api.request_by_email("cleo", people[1])  # who was never looked for there

    def cleos() -> dict[str, str]:
        return store_states({"status": {}, **(api.get("deletionrequests", "cleo") or {})})

    eventually(lambda: cleos().get("site") == "Verified", lambda: str(cleos()))

    api.patch_spec("datastores", "crm", {"owner": "ThirdParty"})
    for name in ("ada", "cleo"):
        request = api.wait("deletionrequests", name, "Erased")
        assert store_states(request) == {"crm": "ThirdParty", "site": "Verified"}
        said = {one["name"]: one.get("message", "") for one in request["status"]["stores"]}
        begun = "an erasure had begun here, and nobody has seen whether it was carried out"
        assert (said["crm"] == begun) == (name != "cleo")
        ready = api.condition("deletionrequests", name, "Ready")["message"]
        assert ("not seen to be erased in crm, which is a third party's since" in ready) == (name != "cleo")
    api.wait_reason("datastores", "crm", "ThirdParty")


def test_a_request_costs_three_writes_at_most_and_leaves_no_annotation_or_finalizer(
    api: Api, site: Site, operator: OperatorProcess, control_plane: ControlPlane
) -> None:
    emails = [f"p{n}@canary.example" for n in range(5)]
    site.sign_up(*emails)
    api.sql_store("site", site.url)
    api.wait("datastores", "site", "Ready")
    for number, email in enumerate(emails):
        api.request_by_email(f"r{number}", email)
    for number in range(5):
        request = api.wait("deletionrequests", f"r{number}", "Erased")
        assert "annotations" not in request["metadata"]
        assert "finalizers" not in request["metadata"]
    for number in range(5):
        writes = [
            f"{event['verb']} {event['objectRef']['resource']}"
            for event in control_plane.audit_events()
            if event["user"]["username"] == "operator"
            and event["verb"] not in ("get", "list", "watch")
            and event.get("objectRef", {}).get("name") == f"r{number}"
            and event["objectRef"].get("namespace") == api.namespace
        ]
        assert "delete secrets" in writes
        assert len(writes) <= 3, writes


def test_statistics_show_nobody_soon_after_an_erasure_also_of_a_process_that_ended(
    api: Api, site: Site, operator: OperatorProcess
) -> None:
    site.sql("CREATE INDEX ON users (lower(email))")
    ada, *_ = site.sign_up(*(f"{name}@canary.example" for name in ("ada", "bob", "cleo", "dan")))
    site.sql("ANALYZE")
    everything = "SELECT string_agg(s::text, ' ') FROM pg_stats s WHERE schemaname = 'public'"
    assert "ada@canary.example" in site.sql(everything)[0][0]
    api.sql_store("site", site.url)
    api.request_by_id("r1", ada)
    api.wait("deletionrequests", "r1", "Erased")
    operator.kill9()  # before it has come to the statistics
    assert "ada@canary.example" in site.sql(everything)[0][0]
    operator.start()
    eventually(lambda: "ada@canary.example" not in site.sql(everything)[0][0], "statistics without her", 40)
    api.wait("datastores", "site", "StatisticsRenewed")
