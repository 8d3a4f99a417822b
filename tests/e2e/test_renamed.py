"""A DataStore gets another name: what was erased under the old one is not forgotten."""

import time
from pathlib import Path
from typing import Any

from devtools.company import SUBJECTS, Api, Site, eventually
from devtools.operator_process import OperatorProcess
from devtools.servers.postgres import PostgresServer
from tests.e2e.test_restore import database_of


def test_a_renamed_store_is_refused_until_it_takes_over_what_was_erased(
    api: Api, site: Site, operator: OperatorProcess, postgres: PostgresServer, tmp_path: Path
) -> None:
    (ada,) = site.sign_up("ada@canary.example")
    api.sql_store("site", site.url)
    api.wait("datastores", "site", "SafeToServe")
    dump = tmp_path / "site.dump"
    postgres.dump(database_of(site), dump)
    api.request_by_id("ada", ada)
    api.wait("deletionrequests", "ada", "Erased")
    assert operator.metric("lethe_stores_unwatched") == 0

    def apply(**more: Any) -> None:
        sql = {"urlSecretRef": {"name": "site-db", "key": "url"}, "subjects": SUBJECTS}
        api.create("datastores", "website", {"role": "Primary", "owner": "Self", "sql": sql, **more})

    apply(formerly="site")
    refused = api.wait_reason("datastores", "website", "OtherName")
    assert "DataStore site is still there" in str(refused["status"]["conditions"])
    api.delete("datastores", "website")
    api.delete("datastores", "site")
    eventually(lambda: operator.metric("lethe_stores_unwatched") == 1, "it to be counted")
    apply()
    refused = api.wait_reason("datastores", "website", "OtherName")
    known = f"this table was known as {api.namespace}/site, and 1 records were erased"
    assert known in str(refused["status"]["conditions"])
    assert "take them over with spec.formerly: site" in str(refused["status"]["conditions"])
    assert api.condition("datastores", "website", "SafeToServe") == {}

    api.patch_spec("datastores", "website", {"formerly": "site"})
    api.wait("datastores", "website", "SafeToServe")
    eventually(lambda: operator.metric("lethe_stores_unwatched") == 0, "it to be looked after")
    postgres.restore(database_of(site), dump, "--clean", "--if-exists")
    eventually(lambda: site.is_cleared(ada), "her to be erased again", 60)
    (event,) = api.list("restoreevents")
    assert event["spec"]["store"] == "website"
    api.wait("restoreevents", event["metadata"]["name"], "SafeToServe")
    time.sleep(1.1)  # creationTimestamp counts whole seconds
    (bob,) = site.sign_up("bob@canary.example")
    api.request_by_id("bob", bob)
    api.wait("deletionrequests", "bob", "Erased")
