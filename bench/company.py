"""A company with three stores (two PostgreSQL databases and a Tryton) and the operator that serves it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devtools.company import SUBJECTS, Api, Site, eventually
from devtools.operator_process import OperatorProcess
from devtools.servers.controlplane import ControlPlane
from devtools.servers.postgres import PostgresServer
from devtools.servers.tryton import TrytonServer

NAMESPACE = "company"
STORES = ("site", "shop", "crm")
CRDS = Path(__file__).resolve().parent.parent / "crds"
_PATIENCE = 120


class MeasuredOperator(OperatorProcess):
    """The operator as it runs in production: default intervals, no DEBUG; its process can be looked at."""

    @property
    def pid(self) -> int:
        """Return the id of the process."""
        return self._child.pid

    def time_to_ready(self) -> float:
        """Start, and return the seconds until it says that it is ready."""
        began = time.perf_counter()
        self.begin()
        while not self.ready():
            if not self.running:
                raise ChildProcessError(f"the operator ended: {self.log.read_text()[-2000:]}")
            time.sleep(0.005)
        return time.perf_counter() - began


@dataclass(slots=True)
class Company:
    """The company's servers; its people are the same in each store."""

    control_plane: ControlPlane
    api: Api
    postgres: PostgresServer
    site: Site
    shop: Site
    tryton: TrytonServer
    operator: MeasuredOperator

    def employ(self, emails: list[str]) -> None:
        """Let people sign up at site and shop, and stand in the CRM."""
        self.site.sign_up(*emails)
        self.shop.sign_up(*emails)
        self.tryton.create_parties("crm", [(email.partition("@")[0], email, None) for email in emails])

    def apply_stores(self) -> None:
        """Apply the three DataStores."""
        subjects: Mapping[str, object] = SUBJECTS
        self.api.sql_store("site", self.site.url, subjects=subjects)
        self.api.sql_store("shop", self.shop.url, role="Other", subjects=subjects)
        server = self.tryton
        self.api.tryton_store("crm", server.url, "crm", server.user, server.password)

    def wait_for_stores(self) -> None:
        """Wait until every store has been looked at and is in order."""

        def all_ready() -> bool:
            return all(
                self.api.condition("datastores", name, "Ready").get("status") == "True" for name in STORES
            )

        eventually(all_ready, lambda: f"the stores: {self.api.list('datastores')}", _PATIENCE)


@contextmanager
def company(folder: Path, *, environment: Mapping[str, str] | None = None) -> Iterator[Company]:
    """Start the servers; the operator is not started yet. All end with the block."""
    sys.stderr.write("  starting API server, PostgreSQL and Tryton\n")
    control_plane = ControlPlane(folder / "control-plane")
    control_plane.add_user("operator", ["system:masters"])
    with (
        control_plane,
        PostgresServer(folder / "postgres") as postgres,
        TrytonServer(folder / "tryton", databases=["crm"]) as tryton,
    ):
        control_plane.kubectl("apply", "--server-side", "--filename", str(CRDS))
        control_plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        control_plane.kubectl("create", "namespace", NAMESPACE)
        operator = MeasuredOperator(
            folder / "operator",
            control_plane.kubeconfig_of("operator"),
            namespaces=[NAMESPACE],
            environment={
                "LETHE_JOURNAL_INTERVAL": "10s",
                "LETHE_SWEEP_INTERVAL": "1h",
                "LETHE_LOG_LEVEL": "INFO",
                "LETHE_LOG_FORMAT": "json",
                "PYTHONDONTWRITEBYTECODE": os.environ.get("PYTHONDONTWRITEBYTECODE", ""),
                **(environment or {}),
            },
        )
        try:
            yield Company(
                control_plane,
                Api(control_plane, NAMESPACE),
                postgres,
                Site(postgres.create_database("site")),
                Site(postgres.create_database("shop")),
                tryton,
                operator,
            )
        finally:
            operator.stop()
