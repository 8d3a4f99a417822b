"""Where the operator lets itself be led to, and what its conditions say of a connection without TLS."""

from __future__ import annotations

from functools import partial

from devtools.company import Api, Site, eventually
from devtools.operator_process import OperatorProcess
from tests.e2e.conftest import StartOperator

REFUSED = "its host leads to an address that LETHE_STORE_HOSTS does not allow; correct the host"


def test_by_default_the_operator_reaches_nothing_on_its_own_machine(
    api: Api, site: Site, start_operator: StartOperator
) -> None:
    (ada,) = site.sign_up("ada@canary.example")
    api.sql_store("site", site.url)
    api.secret("s3", {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"})
    s3 = {"endpoint": "https://localhost:9", "bucket": "dumps", "name": "{takenAt:%Y%m%d}"}
    credentials = {"credentialsSecretRef": {"name": "s3"}}
    api.create("backupsources", "nightly", {"stores": ["site"], "s3": s3 | credentials})
    start_operator(LETHE_STORE_HOSTS="")
    api.request_by_id("r1", ada)
    for plural, name in (("datastores", "site"), ("backupsources", "nightly")):
        eventually(partial(_says, api, plural, name), f"{name} says why it is not reached")
    assert site.is_intact(ada)


def test_a_condition_says_that_a_store_or_source_may_do_without_tls(
    api: Api, site: Site, operator: OperatorProcess
) -> None:
    api.sql_store("site", site.url, plaintext=True)
    api.secret("restic", {"RESTIC_PASSWORD": "p"})
    restic = {
        "repository": "rest:http://localhost:9/",
        "credentialsSecretRef": {"name": "restic"},
        "allowPlaintext": True,
    }
    api.create("backupsources", "nightly", {"stores": ["site"], "restic": restic})
    for plural, name, field in (("datastores", "site", "sql"), ("backupsources", "nightly", "restic")):
        api.wait(plural, name, "PlaintextAllowed")
        said = api.condition(plural, name, "PlaintextAllowed")
        assert (said["reason"], f"spec.{field}.allowPlaintext is true" in said["message"]) == (
            "AllowedBySpec",
            True,
        )
        api.patch_spec(plural, name, {field: {"allowPlaintext": None}})
        eventually(
            partial(_says_nothing_of_tls, api, plural, name),
            f"{name} says no more that it may do without TLS",
        )
    api.wait("datastores", "site", "Ready")


def _says(api: Api, plural: str, name: str) -> bool:
    ready = api.condition(plural, name, "Ready")
    return ready.get("status") == "False" and REFUSED in ready["message"]


def _says_nothing_of_tls(api: Api, plural: str, name: str) -> bool:
    return not api.condition(plural, name, "PlaintextAllowed")
