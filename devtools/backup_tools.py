"""pgBackRest and Barman, each with a PostgreSQL that it knows: of Debian, whose versions fit."""

import os
import pwd
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Self

from devtools.node import packages
from devtools.servers.children import StrPath, run
from devtools.servers.postgres import PostgresServer

SERVERS = Path("/usr/lib/postgresql")


def _install(program: str) -> Path:
    there = any(SERVERS.glob("*/bin/postgres"))
    packages.install({program: program, **({} if there else {"/no/postgres": "postgresql"})})
    return max(SERVERS.glob("*/bin/postgres"), key=lambda path: float(path.parts[-3])).parent


class BackupTool(ABC):
    """A repository in `folder` for one server, which archives into it; `server` runs by then or does not.

    Installs what is missing; raises `SystemExit`, saying what to install, where that can't be done.
    """

    name: ClassVar[str]
    """Of the program, and of its Debian package."""
    stanza = "site"
    """What the tool calls the server."""
    _folders: ClassVar[tuple[str, ...]] = ("repository", "sockets", "locks", "log", "spool")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sockets = folder / "sockets"
        self._configuration = folder / f"{self.name}.conf"
        settings = {
            "archive_mode": "on",
            "archive_command": self._archive_command(),
            "unix_socket_directories": str(self._sockets),
        }
        self.server = PostgresServer(
            folder / "server", programs=_install(self.name), auth="trust", fsync=False, settings=settings
        )

    def prepare(self) -> Self:
        """Make the repository; the server starts afterwards."""
        for name in self._folders:
            (self.folder / name).mkdir(parents=True)
            self.server.give_to_server(self.folder / name.partition("/")[0])
        self._configuration.write_text(self._configured())
        return self

    def __call__(self, *args: StrPath) -> str:
        """Run a command of the tool's, and return what it prints; raises `CommandFailed`."""
        program = shutil.which(self.name) or self.name
        return run([program, *self._options(), *args], run_as=self.server.run_as)

    @abstractmethod
    def _archive_command(self) -> str: ...

    @abstractmethod
    def _configured(self) -> str: ...

    @abstractmethod
    def _options(self) -> list[str]: ...


class PgBackRest(BackupTool):
    """pgBackRest; `stanza-create` makes the stanza once the server runs."""

    name = "pgbackrest"

    def _archive_command(self) -> str:
        return " ".join([self.name, *self._options(), "archive-push %p"])

    def _options(self) -> list[str]:
        return [f"--config={self._configuration}", f"--stanza={self.stanza}"]

    def _configured(self) -> str:
        return (
            f"[global]\nrepo1-path={self.folder}/repository\nlock-path={self.folder}/locks\n"
            f"log-path={self.folder}/log\nspool-path={self.folder}/spool\nlog-level-console=off\n"
            "log-level-stderr=error\nstart-fast=y\ncompress-level=1\nrepo1-retention-full=9\n"
            f"[{self.stanza}]\npg1-path={self.server.data_directory}\npg1-port={self.server.port}\n"
            f"pg1-socket-path={self._sockets}\npg1-user=postgres\n"
        )


class Barman(BackupTool):
    """Barman, which takes base backups, and gets what the server archives."""

    name = "barman"
    _folders = (f"repository/{BackupTool.stanza}/incoming", "sockets", "locks", "log")

    def _archive_command(self) -> str:
        return f"cp %p {self.folder}/repository/{self.stanza}/incoming/%f"

    def _options(self) -> list[str]:
        return [f"--config={self._configuration}"]

    def _configured(self) -> str:
        user = pwd.getpwuid(os.geteuid() if self.server.run_as is None else self.server.run_as).pw_name
        place = f"host=127.0.0.1 port={self.server.port} user=postgres dbname=postgres"
        return (
            f"[barman]\nbarman_user = {user}\nbarman_home = {self.folder}/repository\n"
            f"barman_lock_directory = {self.folder}/locks\nlog_file = {self.folder}/log/barman.log\n"
            f"path_prefix = {self.server.programs}\n"
            f"[{self.stanza}]\ndescription = the site\nconninfo = {place}\nstreaming_conninfo = {place}\n"
            "backup_method = postgres\narchiver = on\nimmediate_checkpoint = true\n"
        )
