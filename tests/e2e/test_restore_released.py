"""A person lets a store be served although a restore has not been dealt with, or never meant to."""

import time
from datetime import timedelta
from pathlib import Path

from devtools.company import SUBJECTS, Api, Site, eventually
from devtools.operator_process import OperatorProcess
from devtools.servers.controlplane import ControlPlane
from devtools.servers.postgres import PostgresServer
from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import open_ledger
from tests.e2e.set_clocks import ClockedOperator
from tests.e2e.test_restore import database_of

WITHOUT_CREATED_AT = {key: value for key, value in SUBJECTS.items() if key != "createdAt"}
DRILL = {"store": "site", "reason": "Drill", "justification": "the yearly drill"}


def break_glass(api: Api, name: str) -> None:
    """Let the store of a RestoreEvent be served at once, whoever came back."""
    uid = (api.get("restoreevents", name) or {})["metadata"]["uid"]
    api.patch_spec("restoreevents", name, {"release": {"because": "the shop has to open", "uid": uid}})


def a_few_looks() -> None:
    """Wait until the store has been looked at some times more."""
    time.sleep(3)


def dump_before_an_erasure(api: Api, site: Site, postgres: PostgresServer, folder: Path) -> Path:
    """Erase somebody who has changed her address since a dump; return the dump."""
    (ada,) = site.sign_up("ada@canary.example")
    api.sql_store("site", site.url, subjects=WITHOUT_CREATED_AT)
    api.wait("datastores", "site", "SafeToServe")
    dump = folder / "site.dump"
    postgres.dump(database_of(site), dump)
    site.sql("UPDATE users SET email = 'ada@new.example' WHERE id = %s", ada)
    api.request_by_id("ada", ada)
    api.wait("deletionrequests", "ada", "Erased")
    return dump


def test_a_store_that_a_person_released_is_never_called_verified(
    api: Api, site: Site, operator: OperatorProcess, postgres: PostgresServer, tmp_path: Path
) -> None:
    dump = dump_before_an_erasure(api, site, postgres, tmp_path)
    postgres.restore(database_of(site), dump, "--clean", "--if-exists")
    eventually(lambda: bool(api.list("restoreevents")), "a RestoreEvent", 60)
    name = api.list("restoreevents")[0]["metadata"]["name"]
    api.wait_reason("restoreevents", name, "IdentityUnclear", patience=60)

    api.patch_spec("restoreevents", name, {"release": {"because": "the shop has to open"}})
    a_few_looks()
    said = api.condition("restoreevents", name, "Ready")
    assert said["reason"] == "IdentityUnclear", "only a broken glass opens what is not verified"
    assert operator.metric("lethe_store_glass_broken") == 0

    break_glass(api, name)

    api.wait_reason("restoreevents", name, "Released")
    for start_anew in (False, True):
        if start_anew:
            operator.stop()
            operator.start()
        eventually(
            lambda: api.condition("datastores", "site", "SafeToServe")["reason"] == "Released",
            "the DataStore to say so",
        )
        for plural, which in (("datastores", "site"), ("restoreevents", name)):
            said = api.condition(plural, which, "SafeToServe")
            assert (said["status"], said["reason"]) == ("False", "Released"), said
            assert f"RestoreEvent {name} let the store be served (the shop has to open); 1 erased" in str(
                said["message"]
            )
    assert api.condition("restoreevents", name, "Replayed")["reason"] == "Released"
    assert len(api.list("restoreevents")) == 1
    eventually(lambda: operator.metric("lethe_store_missing_erasures") == 1, "the metric to show who is left")
    assert operator.metric("lethe_store_safe_to_serve") == 1
    assert operator.metric("lethe_store_glass_broken") == 1
    operator.stop()
    ledger = open_ledger(f"sqlite:///{operator.ledger}", FileKeyring(operator.ledger.parent / "keys"))
    [episode] = ledger.episodes()
    ledger.close()
    recorded = (episode.released_by, episode.released_uid, episode.released_because)
    uid = (api.get("restoreevents", name) or {})["metadata"]["uid"]
    assert recorded == (name, uid, "the shop has to open")


def test_a_declaration_of_yesterday_releases_no_restore_of_today(
    api: Api,
    site: Site,
    control_plane: ControlPlane,
    namespace: str,
    postgres: PostgresServer,
    tmp_path: Path,
) -> None:
    (ada,) = site.sign_up("ada@canary.example")
    api.sql_store("site", site.url)
    api.create("restoreevents", "old", {**DRILL, "release": {"because": "the drill is over"}})
    operator = ClockedOperator(tmp_path, control_plane, namespace, {})
    with operator:
        operator.start()
        api.wait("datastores", "site", "SafeToServe")
        api.wait_reason("restoreevents", "old", "Declared")
        dump = tmp_path / "site.dump"
        postgres.dump(database_of(site), dump)
        api.request_by_id("ada", ada)
        api.wait("deletionrequests", "ada", "Erased")
        operator.restart_in(timedelta(hours=25))
        api.wait_reason("restoreevents", "old", "Expired")

        postgres.restore(database_of(site), dump, "--clean", "--if-exists")

        eventually(lambda: len(api.list("restoreevents")) == 2, "a RestoreEvent of its own", 60)
        name = next(n for one in api.list("restoreevents") if (n := str(one["metadata"]["name"])) != "old")
        event = api.wait("restoreevents", name, "SafeToServe", patience=60)
        assert event["spec"]["reason"] == "Undeclared"
        assert site.is_cleared(ada)
        assert api.condition("restoreevents", "old", "Ready")["reason"] == "Expired"


def test_a_release_that_was_written_before_the_restore_does_not_count_for_it(
    api: Api, site: Site, operator: OperatorProcess, postgres: PostgresServer, tmp_path: Path
) -> None:
    dump = dump_before_an_erasure(api, site, postgres, tmp_path)
    api.create("restoreevents", "drill", DRILL)
    api.wait_reason("restoreevents", "drill", "Declared")
    break_glass(api, "drill")

    postgres.restore(database_of(site), dump, "--clean", "--if-exists")

    said = api.wait_reason("restoreevents", "drill", "IdentityUnclear", patience=60)
    assert "written before this restore" in str(said["status"]["conditions"])
    assert api.condition("datastores", "site", "SafeToServe")["status"] == "False"
    assert len(api.list("restoreevents")) == 1
    time.sleep(1.1)  # creationTimestamp counts whole seconds
    drill = api.get("restoreevents", "drill") or {}
    copied = {"because": "the shop has to open", "uid": drill["metadata"]["uid"]}
    api.create("restoreevents", "copy", {**DRILL, "release": copied})
    eventually(
        lambda: "is not this RestoreEvent's own" in str(api.condition("restoreevents", "copy", "Ready")),
        "the copy to be told so",
    )
    api.create("restoreevents", "open", DRILL)
    break_glass(api, "open")
    api.wait_reason("restoreevents", "open", "Released")
    api.wait_reason("restoreevents", "drill", "Released")
