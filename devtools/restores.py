"""The kinds of restore of a PostgreSQL, as engineers do them: each with what they type, and what does it.

Tests go through them, and a bench prints them as a table (docs/restores.md).
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal, NoReturn

from devtools.backup_tools import BackupTool, Barman, PgBackRest
from devtools.servers.children import run, wait_until
from devtools.servers.postgres import PostgresServer

JOURNAL = ("lethe_journal_head", "lethe_journal_entries")
TABLES = ("users", "sessions", "comments")
PIECES = 30
"""Into how many a restore is cut that takes long: there is a look between each two."""


@dataclass
class Site:
    """What is restored: the database `name` of a server, of a company's people (`devtools/company.py`).

    A kind that ends on another server replaces `server`. `between` is a moment between two erasures, by the
    server's clock. `look` lets whoever watches look once, in the midst of a restore; `stack` closes what a
    kind has started.
    """

    server: PostgresServer
    name: str
    folder: Path
    stack: ExitStack
    look: Callable[[], None]
    between: str = ""
    tool: BackupTool | None = None

    @property
    def archive(self) -> Path:
        """Return where a server of its own archives its write-ahead log."""
        return self.folder / "archive"

    def sql(self, script: str) -> str:
        """Run SQL as the engineer."""
        return self.server.psql(script, database=self.name)

    def dump(self, *args: str) -> Path:
        """Dump the database."""
        return self.server.dump(self.name, self.folder / "site.dump", *args)

    def hang_up(self) -> None:
        """End everybody's sessions in the database."""
        self.server.psql(
            f"SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
            f" WHERE datname = '{self.name}'"
        )


class When(StrEnum):
    """When a restore happens, as seen from the operator."""

    AT_REST = "AtRest"
    DURING_AN_ERASURE = "DuringAnErasure"
    OPERATOR_DOWN = "OperatorDown"


Steps = Callable[[Site], Iterator[None]]
"""Backs up; yields, upon which people are erased; and restores."""


@dataclass(frozen=True)
class RestoreKind:
    """One kind. `typed` is what the engineer types, in short; `back` tells who comes back by it, `times` how
    often, one after the other.

    `version` is that of the server before, `own_server` says that the server itself is restored.
    `before_lethe` takes the backup before Lethe has ever looked. `tool` needs Debian's packages.
    """

    name: str
    typed: str
    steps: Steps
    back: frozenset[str] = frozenset({"ada", "bob"})
    times: int = 1
    when: When = When.AT_REST
    own_server: bool = False
    version: Literal[16, 18] = 18
    before_lethe: bool = False
    tool: type[BackupTool] | None = None

    def __str__(self) -> str:
        return self.name


# --- dumps ---------------------------------------------------------------------------------------------


def _clean(site: Site) -> Iterator[None]:
    dump = site.dump()
    yield
    site.server.restore(site.name, dump, "--clean", "--if-exists")


def _new_database(site: Site) -> Iterator[None]:
    dump = site.dump()
    yield
    site.server.drop_database(site.name)
    site.server.create_database(site.name)
    site.server.restore(site.name, dump, "--jobs=4")


def _data_only(site: Site) -> Iterator[None]:
    dump = site.dump()
    yield
    site.sql(f"TRUNCATE {', '.join((*JOURNAL, *TABLES))}")
    site.server.restore(site.name, dump, "--data-only", "--disable-triggers")


def _plain(site: Site) -> Iterator[None]:
    dump = site.dump("--format=plain", "--clean", "--if-exists")
    yield
    site.sql(dump.read_text())


def _rows_of_a_table(site: Site) -> Iterator[None]:
    dump = site.dump()
    yield
    site.sql("SET session_replication_role = replica; DELETE FROM users")
    site.server.restore(site.name, dump, "--data-only", "--disable-triggers", "--table=users")


def _one_table(site: Site) -> Iterator[None]:
    dump = site.dump()
    yield
    lines = run([site.server.programs / "pg_restore", "--list", dump]).splitlines()
    keys = [line for line in lines if " FK CONSTRAINT " in line]
    table = [line for line in lines if " users" in line and line not in keys]
    site.sql("DROP TABLE users CASCADE")
    for number, some in enumerate((table, keys)):
        listed = site.folder / f"{number}.list"
        listed.write_text("\n".join(some))
        site.server.restore(site.name, dump, f"--use-list={listed}")
        if some is table:
            # Whoever signed up since is gone: nothing may point at them when the keys are made.
            site.sql(
                "DELETE FROM sessions WHERE user_id NOT IN (SELECT id FROM users);"
                "DELETE FROM comments WHERE author_id NOT IN (SELECT id FROM users)"
            )
            site.look()


def _schema_swapped_in(site: Site) -> Iterator[None]:
    dump = site.dump()
    yield
    scratch = f"{site.name}_scratch"
    site.server.create_database(scratch)
    site.server.restore(scratch, dump)
    site.server.psql("ALTER SCHEMA public RENAME TO restored", database=scratch)
    moved = site.server.dump(scratch, site.folder / "restored.sql", "--format=plain", "--schema=restored")
    site.server.drop_database(scratch)
    site.sql(moved.read_text())
    site.look()
    site.sql("BEGIN; ALTER SCHEMA public RENAME TO broken; ALTER SCHEMA restored RENAME TO public; COMMIT;")


def _another_server(site: Site) -> Iterator[None]:
    dump = site.dump()
    yield
    new = site.stack.enter_context(PostgresServer(site.folder / "new", fsync=False))
    new.create_database(site.name)
    new.restore(site.name, dump)
    site.server = new


def _renamed(site: Site) -> Iterator[None]:
    site.hang_up()
    site.server.create_database(f"{site.name}_before", template=site.name)
    yield
    site.hang_up()
    site.server.psql(
        f"ALTER DATABASE {site.name} RENAME TO {site.name}_broken;"
        f"ALTER DATABASE {site.name}_before RENAME TO {site.name}"
    )
    site.stack.callback(site.server.drop_database, f"{site.name}_broken")


def _same_oid(site: Site) -> Iterator[None]:
    site.hang_up()
    before = f"{site.name}_before"
    site.server.create_database(before, template=site.name)
    site.stack.callback(site.server.drop_database, before)
    yield
    oid = site.server.psql(f"SELECT oid FROM pg_database WHERE datname = '{site.name}'")
    site.server.drop_database(site.name)
    site.server.psql(f"CREATE DATABASE {site.name} TEMPLATE {before} OID = {oid}")


def _twice(site: Site) -> Iterator[None]:
    dump = site.dump()
    yield
    site.server.restore(site.name, dump, "--clean", "--if-exists")
    site.look()
    site.look()  # the replay of the first is over by now, or half-way
    site.server.restore(site.name, dump, "--clean", "--if-exists")


def _slowly(site: Site) -> Iterator[None]:
    dump = site.dump("--format=plain", "--clean", "--if-exists")
    yield
    lines = dump.read_text().splitlines(keepends=True)
    at_once = max(1, len(lines) // PIECES)
    command: list[str | Path] = [
        site.server.programs / "psql",
        "--no-psqlrc",
        "--quiet",
        "--set=ON_ERROR_STOP=1",
    ]
    with subprocess.Popen(
        [*command, "--dbname", site.server.url(site.name)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as psql:
        assert psql.stdin is not None
        for first in range(0, len(lines), at_once):
            if first:
                site.look()
            psql.stdin.write("".join(lines[first : first + at_once]).encode())
            psql.stdin.flush()
    if psql.returncode:
        raise RuntimeError("psql did not end well")


# --- files ---------------------------------------------------------------------------------------------


def _base_backup(site: Site) -> Iterator[None]:
    copy = site.server.basebackup(site.folder / "copy")
    yield
    site.server.restore_basebackup(copy, new_timeline=False)


def _base_backup_recovered(site: Site) -> Iterator[None]:
    copy = site.server.basebackup(site.folder / "copy")
    yield
    site.server.restore_basebackup(copy)


def _cold_copy(site: Site) -> Iterator[None]:
    site.server.stop()
    copy = shutil.copytree(site.server.data_directory, site.folder / "copy")
    site.server.start()
    yield
    site.server.restore_basebackup(copy, new_timeline=False)


def _archive(site: Site) -> Iterator[None]:
    copy = site.server.basebackup(site.folder / "copy")
    yield
    last = site.server.psql("SELECT pg_walfile_name(pg_switch_wal())")
    wait_until((site.archive / last).exists, what="the last segment in the archive")
    site.server.restore_basebackup(
        copy,
        recovery={
            "restore_command": f"cp {site.archive}/%f %p",
            "recovery_target_time": site.between,
            "recovery_target_action": "promote",
        },
    )


def _lagging_replica(site: Site) -> Iterator[None]:
    copy = site.server.basebackup(site.folder / "copy")
    replica = PostgresServer(site.folder / "replica", fsync=False)
    replica.password = site.server.password
    replica.directory.mkdir()
    copy.rename(replica.data_directory)
    source = f"host=127.0.0.1 port={site.server.port} user=postgres password={site.server.password}"
    replica.set_in_files({"port": str(replica.port), "primary_conninfo": source})
    (replica.data_directory / "standby.signal").touch()
    replica.give_to_server(replica.data_directory)
    site.stack.enter_context(replica)
    wait_until(
        lambda: bool(replica.psql("SELECT 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'")),
        what="the replica to follow",
    )
    replica.psql("ALTER SYSTEM SET primary_conninfo = ''")  # the network between the two is cut
    replica.psql("SELECT pg_reload_conf()")
    wait_until(
        lambda: not replica.psql("SELECT 1 FROM pg_stat_wal_receiver"), what="the replica to be cut off"
    )
    yield
    site.server.kill9()
    replica.psql("SELECT pg_promote()")
    site.server = replica


def _upgrade_to_18(site: Site, old: Path) -> None:
    """Upgrade the data directory of the stopped server, and let a new one go on with it."""
    new = PostgresServer(site.folder / "upgraded", fsync=False, initdb=["--no-data-checksums"])
    new.password = site.server.password
    new.start()
    new.stop()
    sockets = site.folder / "sockets"
    sockets.mkdir()
    for folder in (old, sockets):
        site.server.give_to_server(folder)
    command: list[str | Path] = [new.programs / "pg_upgrade", "--old-datadir", old, "--new-datadir"]
    command += [new.data_directory, "--old-bindir", site.server.programs, "--new-bindir", new.programs]
    command += [
        "--username=postgres",
        "--socketdir",
        sockets,
        "--old-port",
        str(site.server.port),
        "--no-sync",
    ]
    run(
        ["sh", "-c", 'cd "$0" && exec "$@"', sockets, *command, "--new-port", str(new.port)],
        env={"PGPASSWORD": new.password},
        run_as=site.server.run_as,
    )
    site.server = site.stack.enter_context(new)


def _upgraded(site: Site) -> Iterator[None]:
    yield
    site.server.stop()
    _upgrade_to_18(site, site.server.data_directory)


def _old_copy_upgraded(site: Site) -> Iterator[None]:
    site.server.stop()
    copy = shutil.copytree(site.server.data_directory, site.folder / "copy")
    site.server.start()
    yield
    site.server.stop()
    _upgrade_to_18(site, copy)


# --- pgBackRest ----------------------------------------------------------------------------------------


def _pgbackrest(site: Site, *restore: str, differential: bool = False) -> Iterator[None]:
    pgbackrest = site.tool
    assert pgbackrest is not None
    pgbackrest("stanza-create")
    pgbackrest("backup", "--type=full")
    if differential:
        site.sql("UPDATE comments SET signature = signature")  # something that differs
        pgbackrest("backup", "--type=diff")
    site.sql(
        "SELECT pg_sleep(1)"
    )  # pgBackRest dates a backup to the second, and takes one from before the target
    yield
    site.server.psql("SELECT pg_switch_wal()")
    site.server.stop()
    target = [f"--target={site.between}"] if "--type=time" in restore else []
    pgbackrest("restore", "--delta", *restore, *target)
    _recover(site)


def _recover(site: Site) -> None:
    site.server.start()
    wait_until(lambda: site.server.psql("SELECT pg_is_in_recovery()") == "f", what="the recovery to end")


def _pgbackrest_full(site: Site) -> Iterator[None]:
    return _pgbackrest(site, "--type=immediate", "--target-action=promote")


def _pgbackrest_differential(site: Site) -> Iterator[None]:
    return _pgbackrest(site, "--type=immediate", "--target-action=promote", differential=True)


def _pgbackrest_time(site: Site) -> Iterator[None]:
    return _pgbackrest(site, "--type=time", "--target-action=promote")


def _pgbackrest_newest(site: Site) -> Iterator[None]:
    return _pgbackrest(site)


# --- Barman --------------------------------------------------------------------------------------------


def _barman(site: Site, *target: str, crashed: bool = False) -> Iterator[None]:
    barman = site.tool
    assert barman is not None
    barman("switch-wal", "--archive", "--force", barman.stanza)  # it backs nothing up that archives nothing
    barman("backup", barman.stanza)
    yield
    if crashed:  # and with it the last segment
        site.server.kill9()
    else:
        site.server.stop()
    barman("archive-wal", barman.stanza)
    told = [one.format(site.between) for one in target]
    barman("recover", *told, barman.stanza, "latest", site.server.data_directory)
    _recover(site)


def _barman_full(site: Site) -> Iterator[None]:
    return _barman(site, "--target-immediate", "--target-action=promote")


def _barman_time(site: Site) -> Iterator[None]:
    return _barman(site, "--target-time={}", "--target-action=promote")


def _barman_newest(site: Site) -> Iterator[None]:
    return _barman(site, crashed=True)


@contextmanager
def server_for(kind: RestoreKind, shared: PostgresServer, folder: Path) -> Iterator[Site]:
    """Yield what a kind is done to, on a server of its own with an archive, where it is restored itself.

    Its `name` is to be made.
    """
    with ExitStack() as stack:
        site = Site(shared, "", folder, stack, lambda: None)
        if kind.tool is not None:
            site.tool = kind.tool(folder / "tool").prepare()
            site.server = site.tool.server
        elif kind.own_server:
            site.archive.mkdir(parents=True)
            settings = {"archive_mode": "on", "archive_command": f"cp %p {site.archive}/%f"}
            site.server = PostgresServer(
                folder / "server", version=kind.version, fsync=False, settings=settings
            )
            site.server.give_to_server(site.archive)
        if site.server is not shared:
            stack.enter_context(site.server)
        yield site


_LATE = frozenset({"bob", "zed"})
_NOBODY = frozenset[str]()
_CLEAN = "`pg_restore --clean --if-exists -d site site.dump`"

KINDS: Sequence[RestoreKind] = (
    RestoreKind("all of a dump, over what is there", _CLEAN, _clean),
    RestoreKind(
        "all of a dump, into a new database",
        "`dropdb -f site && createdb site && pg_restore -j4 -d site site.dump`",
        _new_database,
    ),
    RestoreKind(
        "all rows of a dump, into emptied tables",
        "`TRUNCATE …`, `pg_restore --data-only --disable-triggers -d site site.dump`",
        _data_only,
    ),
    RestoreKind("all of a plain dump", "`psql -d site -f site.sql`", _plain),
    RestoreKind(
        "one table's rows",
        "`DELETE FROM users`, `pg_restore --data-only --disable-triggers -t users -d site site.dump`",
        _rows_of_a_table,
    ),
    RestoreKind(
        "one table, dropped before",
        "`DROP TABLE users CASCADE`, `pg_restore -L users.list -d site site.dump`, then the same for the "
        "foreign keys that pointed at it",
        _one_table,
    ),
    RestoreKind(
        "a schema under another name, swapped in",
        "`psql -d site -f restored.sql`, `ALTER SCHEMA public RENAME TO broken`, `ALTER SCHEMA restored "
        "RENAME TO public`",
        _schema_swapped_in,
    ),
    RestoreKind(
        "a dump, on a new server that the URL then leads to",
        "`createdb -h new site && pg_restore -h new -d site site.dump`, then the new URL into the Secret",
        _another_server,
    ),
    RestoreKind(
        "a copy by TEMPLATE, renamed",
        "`createdb -T site site_before`; `ALTER DATABASE site RENAME TO site_broken`, `ALTER DATABASE "
        "site_before RENAME TO site`",
        _renamed,
    ),
    RestoreKind(
        "a copy by TEMPLATE, under the same oid",
        "`DROP DATABASE site`, `CREATE DATABASE site TEMPLATE site_before OID = 16384`",
        _same_oid,
    ),
    RestoreKind(
        "a base backup, with backup_label, started as it is",
        "`pg_basebackup -D copy`; the copy in place of the data directory, start",
        _base_backup,
        own_server=True,
    ),
    RestoreKind(
        "a base backup, recovered to its end",
        "the same, with `recovery.signal`",
        _base_backup_recovered,
        own_server=True,
    ),
    RestoreKind(
        "a copy of the stopped server's files, without backup_label",
        "`cp -a` of the data directory, or a snapshot of its volume; put back, start",
        _cold_copy,
        own_server=True,
    ),
    RestoreKind(
        "a WAL archive, to a moment between two erasures",
        "`recovery_target_time = '…'`, `restore_command = 'cp archive/%f %p'`, `recovery.signal`, start",
        _archive,
        _LATE,
        own_server=True,
    ),
    RestoreKind(
        "a replica that lagged, promoted",
        "`SELECT pg_promote()` on the replica, then its URL into the Secret",
        _lagging_replica,
        own_server=True,
    ),
    RestoreKind(
        "pg_upgrade from 16 to 18",
        "`pg_upgrade`, then the new URL",
        _upgraded,
        _NOBODY,
        own_server=True,
        version=16,
    ),
    RestoreKind(
        "an old copy of 16, upgraded to 18",
        "`pg_upgrade` of the copy, then the new URL",
        _old_copy_upgraded,
        own_server=True,
        version=16,
    ),
    RestoreKind("during an erasure", _CLEAN, _clean, when=When.DURING_AN_ERASURE),
    RestoreKind("two in a row", f"{_CLEAN}, twice", _twice, times=2),
    RestoreKind("while the operator is down", _CLEAN, _clean, when=When.OPERATOR_DOWN),
    RestoreKind(
        "of a dump older than any tombstone, and than the journal",
        "`dropdb -f site && createdb site && pg_restore -j4 -d site site.dump`",
        _new_database,
        frozenset({"ada", "bob", "early"}),
        before_lethe=True,
    ),
    RestoreKind("one that takes long", "`psql -d site < site.sql`, from a pipe that is slow", _slowly),
    RestoreKind(
        "pgBackRest, a full backup",
        "`pgbackrest --stanza=site restore --delta --type=immediate --target-action=promote`, start",
        _pgbackrest_full,
        tool=PgBackRest,
    ),
    RestoreKind(
        "pgBackRest, a differential one",
        "the same; it takes the newest",
        _pgbackrest_differential,
        tool=PgBackRest,
    ),
    RestoreKind(
        "pgBackRest, to a moment between two erasures",
        "`pgbackrest --stanza=site restore --delta --type=time --target='…' --target-action=promote`, start",
        _pgbackrest_time,
        _LATE,
        tool=PgBackRest,
    ),
    RestoreKind(
        "pgBackRest, to the end of the archive, as it does unless told",
        "`pgbackrest --stanza=site restore --delta`, start",
        _pgbackrest_newest,
        _NOBODY,
        tool=PgBackRest,
    ),
    RestoreKind(
        "Barman, a full backup",
        "`barman recover --target-immediate --target-action promote site latest …/data`, start",
        _barman_full,
        tool=Barman,
    ),
    RestoreKind(
        "Barman, to a moment between two erasures",
        "`barman recover --target-time '…' --target-action promote site latest …/data`, start",
        _barman_time,
        _LATE,
        tool=Barman,
    ),
    RestoreKind(
        "Barman, as it does unless told, to the last segment that was archived",
        "`barman recover site latest …/data`, start: it stays on its timeline",
        _barman_newest,
        tool=Barman,
    ),
)


def _not_here(site: Site) -> NoReturn:
    raise NotImplementedError(f"{site.name} is no PostgreSQL")


CRM_ALONE = RestoreKind(
    "a CRM alone: Tryton's database",
    "trytond stopped; a copy of its database in place of it (here a file; `pg_restore` as above); start",
    _not_here,
)
"""The one that is of no PostgreSQL; `bench/restores.py` does it."""
