"""No PII in the cluster: a search for canaries in everything that Lethe writes or causes to be written."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path

from devtools.company import Api, Site, eventually
from devtools.operator_process import OperatorProcess
from devtools.servers import MailServer
from devtools.servers.controlplane import ControlPlane
from devtools.servers.postgres import PostgresServer
from tests.e2e.conftest import StartOperator
from tests.e2e.notices import LIFTED, by_mail, files_that_hold, gag, plain_text, wait_informed

EMAIL = "Zephyrine.Quackenbush@canary-mail.example"
CANARIES = ("zephyrine", "quackenbush", "canary-mail", "canary-password")

PEOPLE_TOLD = (("Philomena", "Thistlewood"), ("Bartholomew", "Crumpsall"))
TOLD_CANARIES = ("philomena", "thistlewood", "bartholomew", "crumpsall", "notice-canary")


def found_in(what: bytes, canaries: Sequence[str] = CANARIES) -> list[str]:
    """Return the canaries in some bytes, plain or in base64 at any alignment."""
    text = what.lower()
    plain = [canary for canary in canaries if canary.encode() in text]
    coded = [
        f"{canary} (base64)"
        for canary in canaries
        for spelling in (canary, canary.capitalize())
        for shift in range(3)
        if base64.b64encode(b"\0" * shift + spelling.encode())[4 if shift else 0 : -4] in what
    ]
    return plain + coded


def test_the_search_itself_finds_a_canary() -> None:
    assert found_in(b"..." + EMAIL.encode())
    assert found_in(base64.b64encode(b"x" + EMAIL.encode()))
    assert found_in(b"nothing") == []


def test_no_personal_data_is_left_in_cluster_logs_metrics_or_ledger(
    api: Api,
    site: Site,
    operator: OperatorProcess,
    control_plane: ControlPlane,
    postgres: PostgresServer,
    tmp_path: Path,
) -> None:
    site.sql(
        "INSERT INTO users (first_name, last_name, email, password_hash, locale, time_zone)"
        " VALUES ('Zephyrine', 'Quackenbush', %s, 'canary-password', 'fr-FR', 'Europe/Paris')",
        EMAIL,
    )
    key = site.sql("SELECT id FROM users WHERE email = %s", EMAIL)[0][0]
    api.sql_store("site", site.url)
    api.sql_store("crm", postgres.url("canary_nowhere"), role="CRM")
    api.wait("datastores", "site", "SafeToServe")
    api.request_by_email("zq", EMAIL)
    eventually(lambda: api.get("secrets", "zq") is None, "the Secret to be sealed and deleted")
    waiting = api.wait_reason("deletionrequests", "zq", "StoreUnreachable")
    assert found_in(json.dumps(waiting).encode()) == []
    # A typing error in a second request, and a value that the store refuses, must print nothing either.
    api.request_by_email("typo", "Zephyrine.Quakenbush@canary-mail.example")
    dump = postgres.dump(site.url.rpartition("/")[2], tmp_path / "before.dump")
    Site(postgres.create_database("canary_nowhere"))
    api.wait("deletionrequests", "zq", "Erased", patience=60)
    api.wait_reason("deletionrequests", "typo", "NothingFound")
    postgres.restore(site.url.rpartition("/")[2], dump, "--clean", "--if-exists")
    eventually(lambda: bool(api.list("restoreevents")), "a RestoreEvent", 60)
    api.wait("restoreevents", api.list("restoreevents")[0]["metadata"]["name"], "SafeToServe", patience=60)
    assert site.is_cleared(key)
    metrics = operator.page("metrics")
    operator.stop()

    assert found_in(control_plane.dump_etcd()) == []
    assert found_in(control_plane.audit_log.read_bytes()) == []
    assert found_in(operator.log.read_bytes()) == []
    assert found_in(metrics.encode()) == []
    for file in operator.directory.rglob("*"):
        if file.is_file():
            assert found_in(file.read_bytes()) == [], file.name
    postgres.drop_database("canary_nowhere")


def test_who_is_told_of_a_legal_request_is_named_in_the_mail_and_nowhere_else(
    api: Api, site: Site, start_operator: StartOperator, control_plane: ControlPlane, tmp_path: Path
) -> None:
    addresses = [f"{first}.{last}@notice-canary.example" for first, last in PEOPLE_TOLD]
    for (first, last), address in zip(PEOPLE_TOLD, addresses, strict=True):
        site.sql(
            "INSERT INTO users (first_name, last_name, email, locale, time_zone)"
            " VALUES (%s, %s, %s, 'fr-FR', 'Europe/Paris')",
            *(first, last, address),
        )
    told, refused = addresses
    api.sql_store("site", site.url)
    with MailServer(tmp_path / "mail") as mail:
        operator = start_operator(**by_mail(mail))
        mail.refuse(refused, 550)  # in its own words, which hold the address

        def request(name: str, address: str, **spec: object) -> None:
            api.secret(name, {"email": address}, "lethe.dev/identifier")
            subject = {"identifierSecretRef": {"name": name, "key": "email"}}
            api.legal_request(name, None, subject=subject, **spec)

        request("le-rejected", told)
        request("le-gagged", told, type="Preservation", preservation={}, nonDisclosure=gag())
        request("le-refused", refused)
        wait_informed(api, "le-rejected", "Sent")
        wait_informed(api, "le-refused", "Undeliverable", "550")
        api.wait("legalrequests", "le-gagged", "Holding")
        api.request_by_email("pt", told)
        api.patch_spec("legalrequests", "le-gagged", {"preservation": LIFTED["nonDisclosure"]})
        api.wait("deletionrequests", "pt", "Erased")
        # The address is kept for the notice now, in the ledger's files and sealed there.
        assert files_that_hold(operator.directory, lambda file: found_in(file, TOLD_CANARIES)) == []
        operator.kill9()
        operator.start()
        api.patch_spec("legalrequests", "le-gagged", LIFTED)
        wait_informed(api, "le-gagged", "Sent")
        api.wait("legalrequests", "le-rejected", "Ready")
        assert api.get("secrets", "le-rejected-answer") is not None
        for name in ("le-rejected", "le-gagged", "le-refused", "pt"):
            eventually(lambda one=name: api.get("secrets", one) is None, f"the Secret {name} to be deleted")  # type: ignore[misc]
        metrics = operator.page("metrics")
        operator.stop()
        letters = mail.messages()
        assert [one.recipients for one in letters] == [(told,), (told,)]
        assert all("Philomena Thistlewood" in plain_text(one) for one in letters)

    assert found_in(control_plane.dump_etcd(), TOLD_CANARIES) == []
    assert found_in(control_plane.audit_log.read_bytes(), TOLD_CANARIES) == []
    assert found_in(metrics.encode(), TOLD_CANARIES) == []
    assert files_that_hold(operator.directory, lambda file: found_in(file, TOLD_CANARIES)) == []
