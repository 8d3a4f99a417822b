"""A real PgBouncer, from the Debian package, in front of a PostgreSQL server."""

import os
import shutil
from pathlib import Path
from typing import Literal, Self
from urllib.parse import quote

import psycopg

from devtools.node import packages
from devtools.servers.children import Child, Server, free_port, wait_until
from devtools.servers.postgres import NOBODY, PostgresServer

PACKAGES = {"pgbouncer": "pgbouncer"}
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class PgBouncer(Server):
    """A pooler in `directory`, which lends one session of each database to all who connect, in turn.

    Raises `SystemExit`, saying what to install, where the package is missing and can't be installed.
    """

    def __init__(
        self, directory: Path, postgres: PostgresServer, *, mode: Literal["transaction", "statement"]
    ) -> None:
        packages.install(PACKAGES)
        self.port = free_port()
        directory.mkdir(parents=True, exist_ok=True)
        settings = directory / "pgbouncer.ini"
        settings.write_text(
            "[databases]\n"
            f"* = host=127.0.0.1 port={postgres.port} user=postgres password='{postgres.password}'\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = any\npool_mode = {mode}\ndefault_pool_size = 1\n"
        )
        program = shutil.which("pgbouncer", path=PATH)
        self._server = Child(
            [str(program), settings],
            log=directory / "pgbouncer.log",
            run_as=NOBODY if os.geteuid() == 0 else None,
        )

    def url(self, database: str) -> str:
        """Return the address of a database behind the pooler."""
        return f"postgresql://somebody@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def start(self) -> Self:
        """Start it, and wait until it lets somebody through."""
        self._server.start()
        wait_until(self._lets_through, what="PgBouncer to let somebody through", children=[self._server])
        return self

    def stop(self) -> None:
        """Stop it."""
        self._server.stop()

    def _lets_through(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True
