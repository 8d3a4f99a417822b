"""A real PgBouncer, from the Debian package, in front of a PostgreSQL server."""

import os
import shutil
from collections.abc import Mapping
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

    It logs in as the superuser for everybody; with `passwords`, by role, as who comes, and lends each role
    `sessions` of them. `settings` are further ones of pgbouncer.ini.

    Raises `SystemExit`, saying what to install, where the package is missing and can't be installed.
    """

    def __init__(
        self,
        directory: Path,
        postgres: PostgresServer,
        *,
        mode: Literal["session", "transaction", "statement"],
        passwords: Mapping[str, str] | None = None,
        sessions: int = 1,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        packages.install(PACKAGES)
        self._passwords = dict(passwords or {})
        self._first = next(iter(self._passwords), "somebody")
        self.port = free_port()
        directory.mkdir(parents=True, exist_ok=True)
        as_superuser = "" if passwords else f"user=postgres password='{postgres.password}'"
        authentication = {"auth_type": "any"}
        if passwords:
            users = directory / "users.txt"
            users.write_text("".join(f'"{role}" "{secret}"\n' for role, secret in passwords.items()))
            authentication = {"auth_type": "scram-sha-256", "auth_file": str(users)}
        ours = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "pool_mode": mode,
            "default_pool_size": str(sessions),
            **authentication,
            **(settings or {}),
        }
        file = directory / "pgbouncer.ini"
        file.write_text(
            f"[databases]\n* = host=127.0.0.1 port={postgres.port} {as_superuser}\n[pgbouncer]\n"
            + "".join(f"{name} = {value}\n" for name, value in ours.items())
        )
        program = shutil.which("pgbouncer", path=PATH)
        self._server = Child(
            [str(program), file],
            log=directory / "pgbouncer.log",
            run_as=NOBODY if os.geteuid() == 0 else None,
        )

    def url(self, database: str, user: str = "somebody") -> str:
        """Return the address of a database behind the pooler."""
        secret = f":{quote(self._passwords[user], safe='')}" if user in self._passwords else ""
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/{quote(database, safe='')}"

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
            psycopg.connect(self.url("postgres", self._first), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True
