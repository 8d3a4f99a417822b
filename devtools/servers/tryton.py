"""A real trytond with its modules party and company: the CRM and the HRM of tests and the demo."""

import base64
import contextlib
import importlib.metadata
import json
import shutil
import sqlite3
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from devtools.cache import cached
from devtools.servers.children import Child, Server, free_port, run, wait_until

MODULES = ["company", "party"]
ADMIN = "admin"
# In the prepared database, and only there: the server listens on this machine only, for a test.
PASSWORD = "correct horse battery staple"
PREPARATION = "2"  # to be raised when `_prepare` does something else


class TrytonServer(Server):
    """trytond on SQLite in `directory`, with one database for each of `databases`; a context manager.

    It is ready in about two seconds; the first time on a machine, preparing a database takes half a minute.
    JSON-RPC is at `url` + `/<database>/rpc/`, for `user` with `password`, an administrator. Databases stay
    when it is stopped and started again.
    """

    user = ADMIN
    password = PASSWORD

    def __init__(self, directory: Path, *, databases: Sequence[str] = ("crm", "hrm")) -> None:
        self.directory = directory.absolute()
        self.databases = tuple(databases)
        self.log_path = self.directory / "trytond.log"
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._sessions: dict[str, str] = {}
        self._configuration = _configuration(self.directory, port)
        self._server = Child(
            [*_python("trytond"), "-c", self.directory / "trytond.conf", "-d", *self.databases],
            log=self.log_path,
        )

    def start(self) -> Self:
        """Start the server, making its databases first, and wait until it answers."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "trytond.conf").write_text(self._configuration)
        for database in self.databases:
            file = self.database_file(database)
            if not file.exists():
                shutil.copyfile(_template() / "template.sqlite", file)
        self._server.start()
        wait_until(self._answers, what="trytond to answer", children=[self._server])
        return self

    def stop(self) -> None:
        """Stop the server."""
        self._server.stop()

    def kill9(self) -> None:
        """Kill the server."""
        self._server.kill9()

    def database_file(self, database: str) -> Path:
        """Return the file of a database, to copy it or to search its bytes; what is newest is in `-wal`."""
        return self.directory / f"{database}.sqlite"

    def copy(self, database: str, to: Path) -> Path:
        """Copy a database as it is at this moment, with what is newest."""
        with (
            contextlib.closing(sqlite3.connect(self.database_file(database))) as source,
            contextlib.closing(sqlite3.connect(to)) as target,
        ):
            source.backup(target)
        return to

    def put_back(self, database: str, copy: Path) -> None:
        """Put a copy in place of a database, as an engineer does: with the server stopped."""
        self.stop()
        file = self.database_file(database)
        for suffix in ("", "-wal", "-shm"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
        shutil.copyfile(copy, file)
        self.start()

    def rpc(self, database: str, method: str, *params: Any, context: dict[str, Any] | None = None) -> Any:
        """Call a method as the administrator, such as `model.party.party.search`, and return its result.

        Raises `TrytonRefused` when Tryton answers with an error, and `urllib.error.URLError` when it is away.
        """
        if database not in self._sessions:
            self._log_in(database)
        try:
            return self._call(database, method, [*params, context or {}])
        except urllib.error.HTTPError as refused:
            if refused.code != 401:
                raise
            self._log_in(database)  # sessions end
            return self._call(database, method, [*params, context or {}])

    def create_parties(
        self, database: str, parties: Iterable[tuple[str, str | None, str | None]]
    ) -> list[int]:
        """Create persons, each as (name, e-mail, ISO language code); return their ids in the same order."""
        languages = {
            row["code"]: row["id"]
            for row in self.rpc(database, "model.ir.lang.search_read", [], 0, None, None, ["code"])
        }
        everybody, ids = list(parties), list[int]()
        for first in range(0, len(everybody), 500):
            values = [
                {
                    "name": name,
                    "lang": languages[language] if language else None,
                    "contact_mechanisms": [["create", [{"type": "email", "value": email}]]] if email else [],
                    "addresses": [],
                }
                for name, email, language in everybody[first : first + 500]
            ]
            ids += self.rpc(database, "model.party.party.create", values)
        return ids

    def create_employees(self, database: str, parties: Sequence[int]) -> list[int]:
        """Employ parties in the company that every database holds; return the employees' ids in order."""
        (company,) = self.rpc(database, "model.company.company.search", [])
        values = [{"party": party, "company": company} for party in parties]
        employees: list[int] = self.rpc(database, "model.company.employee.create", values)
        return employees

    def _log_in(self, database: str) -> None:
        number, session = self._call(database, "common.db.login", [ADMIN, {"password": PASSWORD}])[:2]
        self._sessions[database] = base64.b64encode(f"{ADMIN}:{number}:{session}".encode()).decode()

    def _call(self, database: str, method: str, params: list[Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        if database in self._sessions and not method.startswith("common."):
            headers["Authorization"] = f"Session {self._sessions[database]}"
        body = json.dumps({"id": 0, "method": method, "params": params}).encode()
        request = urllib.request.Request(f"{self.url}/{database}/rpc/", data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=300) as response:
            answer = json.loads(response.read())
        if answer.get("error"):
            raise TrytonRefused(method, answer["error"])
        return answer["result"]

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self.url, timeout=10).close()
        except urllib.error.HTTPError:
            return True  # by then it has loaded its databases; what it says of `/` is no matter
        except OSError:
            return False
        return True


class TrytonRefused(Exception):
    """Tryton answered a call with an error of its own: name and arguments."""

    def __init__(self, method: str, error: Any) -> None:
        self.error = error
        super().__init__(f"{method}: {error}")


def _template() -> Path:
    packages = ["trytond", *(f"trytond-{module}" for module in MODULES)]
    versions = "-".join(importlib.metadata.version(package) for package in packages)
    return cached(f"tryton-{versions}-{PREPARATION}", _prepare)


def _prepare(folder: Path) -> None:
    print("Preparing a database of Tryton (half a minute, once per machine)", file=sys.stderr, flush=True)
    configuration, password = folder / "trytond.conf", folder / "password"
    configuration.write_text(_configuration(folder, 0))
    password.write_text(PASSWORD)
    database = folder / "template.sqlite"
    database.touch()
    admin = [*_python("trytond-admin"), "-c", configuration, "-d", "template"]
    run([*admin, "--all", "--email", "admin@example.org"], env={"TRYTONPASSFILE": str(password)})
    run([*admin, "--update", *MODULES, "--activate-dependencies"])
    for left_over in folder.iterdir():
        if left_over != database:
            left_over.unlink()
    unfinished = TrytonServer(folder / "server", databases=["template"])
    unfinished.directory.mkdir()
    database.rename(unfinished.database_file("template"))
    with unfinished:
        (currency,) = unfinished.rpc(
            "template",
            "model.currency.currency.create",
            [{"name": "Euro", "symbol": "€", "code": "EUR", "numeric_code": "978"}],
        )
        (employer,) = unfinished.create_parties("template", [("Example Ltd", None, None)])
        unfinished.rpc(
            "template", "model.company.company.create", [{"party": employer, "currency": currency}]
        )
    # What was written last is in a write-ahead log beside the file.
    with contextlib.closing(sqlite3.connect(unfinished.database_file("template"))) as source:
        source.execute("VACUUM INTO ?", [str(database)])
    shutil.rmtree(unfinished.directory)


def _configuration(directory: Path, port: int) -> str:
    return f"[database]\nuri = sqlite://\npath = {directory}\n[web]\nlisten = 127.0.0.1:{port}\n"


def _python(script: str) -> list[str | Path]:
    return [sys.executable, Path(sys.executable).parent / script]
