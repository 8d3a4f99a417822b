"""pgBackRest, and a PostgreSQL that it knows: from Debian, of the versions that belong together there."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from devtools.node import packages
from devtools.servers.children import run
from devtools.servers.postgres import PostgresServer

PACKAGES = {"pgbackrest": "pgbackrest"}
SERVERS = Path("/usr/lib/postgresql")


def install() -> Path:
    """Install what is missing; return the folder of PostgreSQL's programs.

    Raises `SystemExit`, saying what to install, where that can't be done.
    """
    there = any(SERVERS.glob("*/bin/postgres"))
    packages.install({**PACKAGES, **({} if there else {"/no/postgres": "postgresql"})})
    return max(SERVERS.glob("*/bin/postgres"), key=lambda path: float(path.parts[-3])).parent


class PgBackRest:
    """A repository in `folder` for one server, which archives into it; `server` runs by then or does not."""

    stanza = "site"

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self._configuration = folder / "pgbackrest.conf"
        self._sockets = folder / "sockets"
        self.server = PostgresServer(
            folder / "server", programs=programs, auth="trust", fsync=False, settings=self._settings()
        )

    def _settings(self) -> Mapping[str, str]:
        pgbackrest = f"pgbackrest --config={self._configuration} --stanza={self.stanza}"
        return {
            "archive_mode": "on",
            "archive_command": f"{pgbackrest} archive-push %p",
            "unix_socket_directories": str(self._sockets),
        }

    def prepare(self) -> Self:
        """Make the repository; the server starts afterwards, and `create` makes the stanza."""
        for name in ("repository", "sockets", "locks", "log", "spool"):
            (self.folder / name).mkdir(parents=True)
            self.server.give_to_server(self.folder / name)
        self._configuration.write_text(
            f"[global]\nrepo1-path={self.folder}/repository\nlock-path={self.folder}/locks\n"
            f"log-path={self.folder}/log\nspool-path={self.folder}/spool\nlog-level-console=off\n"
            "log-level-stderr=error\nstart-fast=y\ncompress-level=1\nrepo1-retention-full=9\n"
            f"[{self.stanza}]\npg1-path={self.server.data_directory}\npg1-port={self.server.port}\n"
            f"pg1-socket-path={self._sockets}\npg1-user=postgres\n"
        )
        return self

    def __call__(self, *args: str) -> None:
        """Run a command of pgBackRest's; raises `CommandFailed`."""
        program = shutil.which("pgbackrest") or "pgbackrest"
        command = [program, f"--config={self._configuration}", f"--stanza={self.stanza}", *args]
        run(command, run_as=self.server.run_as)
