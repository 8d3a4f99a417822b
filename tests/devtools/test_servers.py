"""What tests, demo and benches rely on: servers are real, apart from each other, and gone afterwards."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest

from devtools.cache import NothingIsBuilt, cached
from devtools.servers import CommandFailed, ControlPlane, PostgresServer, ServerFailed, TrytonServer
from devtools.servers.children import Child, alive, wait_until

ROOT = Path(__file__).resolve().parents[2]


def test_the_api_server_answers_and_lists_namespaces(control_plane: ControlPlane, namespace: str) -> None:
    listed = control_plane.kubectl("get", "namespaces", "--output=name").split()

    assert {"namespace/default", f"namespace/{namespace}"} <= set(listed)


@pytest.mark.usefixtures("built_programs")
def test_users_may_do_what_rbac_grants_and_the_audit_log_says_who_did_what(tmp_path: Path) -> None:
    cluster = ControlPlane(tmp_path)
    cluster.add_user("support", ["staff"])
    with cluster:
        with pytest.raises(CommandFailed, match="Forbidden"):
            cluster.kubectl("get", "namespaces", user="support")
        cluster.kubectl("create", "clusterrole", "lister", "--verb=list", "--resource=namespaces")
        cluster.kubectl("create", "clusterrolebinding", "staff", "--clusterrole=lister", "--group=staff")
        # RBAC reads its own cache, which follows within moments.
        wait_until(
            lambda: _may_list_namespaces(cluster, "support"),
            what="the binding to count",
        )
        verbs = {
            event["verb"]
            for event in cluster.audit_events()
            if event["user"]["username"] == "support"
            and event.get("objectRef", {}).get("resource") == "namespaces"
        }

    assert verbs == {"list"}


def _may_list_namespaces(cluster: ControlPlane, user: str) -> bool:
    try:
        cluster.kubectl("get", "namespaces", user=user)
    except CommandFailed:
        return False
    return True


def test_a_dump_of_etcd_holds_what_the_api_server_stored_until_it_is_deleted(
    control_plane: ControlPlane, namespace: str
) -> None:
    secret = ["secret", "generic", "canary", f"--namespace={namespace}"]
    control_plane.kubectl("create", *secret, "--from-literal=value=yellow-canary")
    assert b"yellow-canary" in control_plane.dump_etcd()

    control_plane.kubectl("delete", "secret", "canary", f"--namespace={namespace}")
    assert b"yellow-canary" not in control_plane.dump_etcd()


@pytest.mark.usefixtures("built_programs")
def test_the_api_server_comes_back_with_what_it_knew(tmp_path: Path) -> None:
    with ControlPlane(tmp_path) as cluster:
        cluster.kubectl("create", "namespace", "remembered")
        cluster.stop()
        assert not cluster.ready()
        cluster.start()

        assert "remembered" in cluster.kubectl("get", "namespaces")


def test_two_databases_are_apart(postgres: PostgresServer, database: str) -> None:
    other = postgres.create_database("apart")
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE only_here ()")
    with psycopg.connect(other) as connection:
        found = connection.execute("SELECT to_regclass('only_here')").fetchone()
    postgres.drop_database("apart")

    assert found == (None,)


def test_a_wrong_password_is_refused(postgres: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.url(password="wrong"))


def test_a_restored_dump_brings_back_what_was_dumped(postgres: PostgresServer, tmp_path: Path) -> None:
    postgres.create_database("dumped")
    postgres.psql("CREATE TABLE person (name text); INSERT INTO person VALUES ('Zoë')", database="dumped")
    dump = postgres.dump("dumped", tmp_path / "dump")
    postgres.psql("UPDATE person SET name = ''", database="dumped")

    postgres.restore("dumped", dump, "--clean", "--if-exists")

    assert postgres.psql("SELECT name FROM person", database="dumped") == "Zoë"
    postgres.drop_database("dumped")


@pytest.mark.parametrize(("new_timeline", "timeline"), [(True, "2"), (False, "1")])
def test_a_base_backup_takes_the_whole_server_back(tmp_path: Path, new_timeline: bool, timeline: str) -> None:
    with PostgresServer(tmp_path / "server", fsync=False) as server:
        server.psql("CREATE TABLE person (name text); INSERT INTO person VALUES ('Zoë')")
        identity = server.psql("SELECT system_identifier FROM pg_control_system()")
        backup = server.basebackup(tmp_path / "backup")
        server.psql("DROP TABLE person")

        server.restore_basebackup(backup, new_timeline=new_timeline)

        assert server.psql("SELECT name FROM person") == "Zoë"
        assert server.psql("SELECT system_identifier FROM pg_control_system()") == identity
        assert server.psql("CHECKPOINT; SELECT timeline_id FROM pg_control_checkpoint()") == timeline


def test_what_was_committed_survives_kill_9(tmp_path: Path) -> None:
    with PostgresServer(tmp_path) as server:
        server.psql("CREATE TABLE person (name text); INSERT INTO person VALUES ('Zoë')")
        server.kill9()
        server.start()

        assert server.psql("SELECT name FROM person") == "Zoë"


def test_tryton_finds_who_was_seeded_and_only_in_that_database(tryton: TrytonServer) -> None:
    seeded = tryton.create_parties("crm", [("Zoë", "zoe@example.org", "de"), ("Ana", None, None)])
    searched = ["contact_mechanisms.value", "=", "zoe@example.org"]

    assert tryton.rpc("crm", "model.party.party.search", searched) == seeded[:1]
    assert tryton.rpc("hrm", "model.party.party.search", searched) == []


@pytest.mark.usefixtures("built_programs")
def test_tryton_keeps_its_databases_when_it_is_started_again(tmp_path: Path) -> None:
    with TrytonServer(tmp_path, databases=["hrm"]) as server:
        employees = server.create_employees("hrm", server.create_parties("hrm", [("Zoë", None, "fr")]))
        server.kill9()
        server.start()

        assert server.rpc("hrm", "model.company.employee.search", []) == employees


def test_a_server_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from devtools.servers.children import Child;"
        "child = Child(['sleep', '3600'], log=Path(sys.argv[1])); child.start();"
        "print(child.pid, flush=True); time.sleep(3600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "log"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.kill()
    parent.communicate()

    wait_until(lambda: not alive(child), what="the child to die")


def test_postgres_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from devtools.servers import PostgresServer;"
        "server = PostgresServer(Path(sys.argv[1]), fsync=False).start();"
        "print(server.data_directory / 'postmaster.pid', flush=True); time.sleep(3600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert parent.stdout is not None
    postmaster = int(Path(parent.stdout.readline().strip()).read_text().split()[0])
    assert alive(postmaster)
    parent.kill()
    parent.communicate()

    wait_until(lambda: not alive(postmaster), what="PostgreSQL to end")


def test_a_server_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    child = Child(["sleep", "3600"], log=tmp_path / "log")

    def start() -> None:
        child.start()
        wait_until(
            lambda: Path(f"/proc/{child.pid}/comm").read_text() == "sleep\n", what="the child to be itself"
        )

    starter = threading.Thread(target=start)
    starter.start()
    starter.join()
    wait_until(
        lambda: not Path(f"/proc/self/task/{starter.native_id}").exists(), what="the thread to be gone"
    )
    process = child._process
    assert process is not None
    child.stop()

    # Not SIGKILL, which the kernel would have sent when the thread ended.
    assert process.returncode == -signal.SIGTERM


def test_a_server_that_ends_by_itself_is_reported_with_its_log(tmp_path: Path) -> None:
    child = Child(["sh", "-c", "echo out of luck; exit 1"], log=tmp_path / "log")
    child.start()
    with pytest.raises(ServerFailed, match="ended by itself: out of luck"):
        wait_until(lambda: False, what="nothing", children=[child])


def test_a_fast_test_that_asks_for_what_is_built_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LETHE_CACHE", str(tmp_path))
    (tmp_path / "built-here").mkdir()
    with pytest.raises(NothingIsBuilt, match="built-here"):
        cached("built-here", Path.touch)


@pytest.mark.usefixtures("built_programs")
def test_any_other_test_is_given_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_CACHE", str(tmp_path))
    (tmp_path / "built-here").mkdir()
    assert cached("built-here", Path.touch) == tmp_path / "built-here"


def test_what_is_cached_is_made_once_and_never_seen_half_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LETHE_CACHE", str(tmp_path))
    monkeypatch.delenv("LETHE_BUILDS", raising=False)
    made: list[Path] = []

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cached("slow", fail)
    assert not (tmp_path / "slow").exists()

    (tmp_path / "slow.interrupted").mkdir()
    second = threading.Thread(target=cached, args=("slow", made.append))

    def make(folder: Path) -> None:
        second.start()
        second.join(1)  # without a lock it would be done by then
        made.append(folder)

    cached("slow", make)
    second.join()
    assert len(made) == 1
    assert (tmp_path / "slow").is_dir()
    assert list(tmp_path.glob("slow.*")) == [tmp_path / "slow.lock"]
