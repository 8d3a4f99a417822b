"""A store is put back from a dump that a BackupSource knows: the RestoreEvent says from which."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from devtools.company import Api, Site, eventually
from devtools.dumps import apply_source, days_ago, dump_name, instant, leave_dump, snapshot_states
from devtools.servers.postgres import PostgresServer
from tests.e2e.conftest import StartOperator

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("declared", [False, True], ids=["undeclared", "declared"])
def test_a_restore_tells_from_which_snapshot_it_came(
    api: Api,
    site: Site,
    tmp_path: Path,
    postgres: PostgresServer,
    start_operator: StartOperator,
    declared: bool,
) -> None:
    dumps = tmp_path / "dumps"
    dumps.mkdir()
    leave_dump(dumps, days_ago(1))
    start_operator(LETHE_SCAN_INTERVAL="300ms", LETHE_BACKUP_DIRECTORIES=str(dumps))
    (ada,) = site.sign_up("ada@example.org")
    api.sql_store("site", site.url)
    apply_source(api, dumps)
    api.wait("datastores", "site", "SafeToServe")
    taken_at = datetime.now(UTC).replace(microsecond=0)
    name = dump_name(taken_at)
    database = site.url.rpartition("/")[2].partition("?")[0]
    # A dump gets its name once it is whole, as every careful job does it.
    dump = postgres.dump(database, tmp_path / "unfinished").rename(dumps / name)
    eventually(lambda: snapshot_states(api).get(name) == "Present", lambda: str(snapshot_states(api)))
    snapshot = next(
        one["metadata"]["name"] for one in api.list("backupsnapshots") if one["spec"]["ref"] == name
    )
    api.request_by_id("ada", ada)
    api.wait("deletionrequests", "ada", "Erased")
    if declared:
        why = {"reason": "NaturalDisaster", "justification": "the flood took the rack"}
        api.create("restoreevents", "flood", {"store": "site", "restoredFrom": {"snapshot": snapshot}, **why})
        eventually(
            lambda: (
                (api.get("restoreevents", "flood") or {}).get("status", {}).get("restoredFrom")
                == {"snapshot": snapshot}
            ),
            lambda: f"the declared snapshot; it is {api.get('restoreevents', 'flood')}",
        )

    postgres.restore(database, dump, "--clean", "--if-exists")

    eventually(
        lambda: any(
            (one.get("status") or {}).get("state") == "SafeToServe" for one in api.list("restoreevents")
        ),
        lambda: f"a RestoreEvent; it is {api.list('restoreevents')}",
        60,
    )
    (event,) = api.list("restoreevents")
    assert (event["metadata"]["name"] == "flood") == declared
    assert event["status"]["restoredFrom"] == {"snapshot": snapshot, "takenAt": instant(taken_at)}
    assert site.is_cleared(ada)
