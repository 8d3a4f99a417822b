"""Bad input ends in a message that names object, field and remedy; nothing is half-erased, nothing
personal printed.
"""

import json
from functools import partial

import pytest

from devtools.company import SUBJECTS, Api, Site, eventually, names
from devtools.operator_process import OperatorProcess
from devtools.servers.postgres import PostgresServer


def ready_message(api: Api, plural: str, name: str) -> str:
    """Return the message of Ready."""
    return str(api.condition(plural, name, "Ready").get("message", ""))


@pytest.mark.parametrize(
    ("content", "kind", "says"),
    [
        (None, "", "does not exist"),
        ({"mail": "ada@canary.example"}, "lethe.dev/identifier", "has no key email"),
        ({"email": ""}, "lethe.dev/identifier", "is not one e-mail address"),
        ({"email": "ada@canary.example, bob@canary.example"}, "lethe.dev/identifier", "is not one e-mail"),
        ({"email": b"\xff\xfe"}, "lethe.dev/identifier", "is not one e-mail address"),
        ({"email": "ada@canary.example"}, "Opaque", "must be of type lethe.dev/identifier"),
    ],
)
def test_a_secret_that_cannot_be_used_is_named_with_the_remedy_and_left_alone(
    api: Api, site: Site, operator: OperatorProcess, content: dict[str, str] | None, kind: str, says: str
) -> None:
    (ada,) = site.sign_up("ada@canary.example")
    api.sql_store("site", site.url)
    if content is not None:
        api.secret("r1", content, kind)
    subject = {"identifierSecretRef": {"name": "r1", "key": "email"}}
    api.create("deletionrequests", "r1", {"subject": subject})
    request = api.wait_reason("deletionrequests", "r1", "SecretMissing")
    message = ready_message(api, "deletionrequests", "r1")
    assert says in message
    assert "r1" in message
    assert "canary" not in json.dumps(request)
    assert site.is_intact(ada)
    assert (api.get("secrets", "r1") is None) == (content is None)
    api.secret("r1", {"email": "ada@canary.example"}, "lethe.dev/identifier")
    api.wait("deletionrequests", "r1", "Erased", patience=60)
    assert site.is_cleared(ada)


def test_stores_that_cannot_be_reached_say_why_without_the_password(
    api: Api, site: Site, operator: OperatorProcess, postgres: PostgresServer
) -> None:
    server = site.url.partition("@")[2].partition("/")[0] if "@" in site.url else site.url.split("/")[2]
    cases = {
        "nourl": ("not a url, hunter2", "postgresql://"),
        "nohost": ("postgresql://u:hunter2@127.0.0.1:1/x", "urlSecretRef"),
        "nodb": (f"postgresql://postgres:hunter2@{server}/not_there", "urlSecretRef"),
        "notls": (f"postgresql://postgres:hunter2@{server}/postgres?sslmode=require", "urlSecretRef"),
    }
    for name, (url, _) in cases.items():
        api.sql_store(name, url, role="Other")
    for name, (_, says) in cases.items():
        api.wait("datastores", name, "Ready", "False")
        eventually(partial(says_remedy, api, name, cases), f"{name} to say {says}")
        assert "hunter2" not in json.dumps(api.get("datastores", name))


def says_remedy(api: Api, name: str, cases: dict[str, tuple[str, str]]) -> bool:
    """Whether a DataStore's message holds the remedy."""
    return cases[name][1] in ready_message(api, "datastores", name)


def test_a_mapping_that_does_not_fit_is_stalled_and_names_field_and_remedy(
    api: Api, site: Site, operator: OperatorProcess
) -> None:
    (ada,) = site.sign_up("ada@canary.example")
    wrong = json.loads(json.dumps(SUBJECTS))
    wrong["clear"][0]["column"] = "first_nme"
    wrong["clear"][3] = {"column": "password_hash", "holds": "Password", "to": "SetNull"}
    api.sql_store("site", site.url, subjects=wrong)
    api.wait_reason("datastores", "site", "MappingInvalid")
    message = ready_message(api, "datastores", "site")
    assert "users.first_nme does not exist" in message
    assert "first_name" in message
    assert "spec.sql.subjects.clear[0].column" in message
    assert "password_hash" in message
    assert api.condition("datastores", "site", "Stalled")["status"] == "True"
    api.request_by_id("r1", ada)
    api.wait_reason("deletionrequests", "r1", "StoreUnreachable")
    assert site.is_intact(ada)
    api.patch_spec("datastores", "site", {"sql": {"subjects": SUBJECTS}})
    api.wait("deletionrequests", "r1", "Erased", patience=60)


def test_a_mapping_without_a_kind_of_pii_says_which(api: Api, site: Site, operator: OperatorProcess) -> None:
    fewer = json.loads(json.dumps(SUBJECTS))
    fewer["clear"] = [rule for rule in fewer["clear"] if rule["holds"] != "TimeZone"]
    api.sql_store("site", site.url, subjects=fewer)
    api.wait("datastores", "site", "Ready")
    complete = api.condition("datastores", "site", "MappingComplete")
    assert complete["status"] == "False"
    assert complete["reason"] == "KindsUnmapped"
    assert "TimeZone" in complete["message"]


def test_a_second_primary_is_stalled(
    api: Api, site: Site, operator: OperatorProcess, postgres: PostgresServer
) -> None:
    api.sql_store("site", site.url)
    api.wait("datastores", "site", "Ready")
    other = Site(postgres.create_database("second_primary"))
    api.sql_store("other", other.url)
    api.wait_reason("datastores", "other", "DuplicatePrimary")
    postgres.drop_database("second_primary")


def test_a_read_only_database_is_waited_for(
    api: Api, site: Site, operator: OperatorProcess, postgres: PostgresServer
) -> None:
    (ada,) = site.sign_up("ada@canary.example")
    api.sql_store("site", site.url)
    api.wait("datastores", "site", "SafeToServe")
    database = site.url.rpartition("/")[2]
    site.sql(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    site.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lethe'")
    api.request_by_id("r1", ada)
    api.wait_reason("deletionrequests", "r1", "StoreUnreachable")
    assert "read-only" in ready_message(api, "deletionrequests", "r1")
    postgres.psql(
        f"ALTER DATABASE {database} RESET default_transaction_read_only;"
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lethe'"
    )
    api.wait("deletionrequests", "r1", "Erased", patience=60)
    assert names(api.list("restoreevents")) == []


def test_a_wrong_password_is_told_and_a_corrected_secret_is_picked_up(
    api: Api, site: Site, operator: OperatorProcess, postgres: PostgresServer
) -> None:
    (ada,) = site.sign_up("ada@canary.example")
    database = site.url.rpartition("/")[2]
    api.sql_store("site", postgres.url(database, password="hunter2"))
    api.wait("datastores", "site", "Ready", "False")
    assert "password" in ready_message(api, "datastores", "site")
    assert "hunter2" not in json.dumps(api.get("datastores", "site"))
    api.request_by_id("r1", ada)
    api.wait_reason("deletionrequests", "r1", "StoreUnreachable")
    api.secret("site-db", {"url": site.url})
    api.wait("deletionrequests", "r1", "Erased", patience=60)
    assert site.is_cleared(ada)


def test_a_store_that_is_edited_often_is_guarded_once_as_its_newest_manifest_says(
    api: Api, site: Site, operator: OperatorProcess
) -> None:
    (ada,) = site.sign_up("ada@canary.example")
    api.sql_store("site", site.url)
    api.wait("datastores", "site", "Ready")
    for number in range(10):
        api.patch_spec("datastores", "site", {"sql": {"maxRecords": 10 + number}})
    newest = (api.get("datastores", "site") or {})["metadata"]["generation"]

    def settled() -> bool:
        return bool((api.get("datastores", "site") or {})["status"]["observedGeneration"] == newest)

    eventually(settled, "the newest generation to be observed")
    api.request_by_id("r1", ada)
    api.wait("deletionrequests", "r1", "Erased")
    connections = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lethe' AND datname = %s"
    open_now = site.sql(connections, site.url.rpartition("/")[2])[0][0]
    assert open_now <= 2, "one guard has at most two connections"
