"""A real Tryton that is put back alone: it keeps no journal, and shows it all the same in the next look."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from devtools.servers.tryton import TrytonServer
from lethe.adapters.stores.tryton import TrytonStore
from lethe.domain.facts import DetectedBy
from lethe.domain.mapping import StoreOwner, StoreRole
from lethe.workflows.store_pass import PassPlan, StorePass, reconcile_store
from lethe.workflows.store_session import StoreDescription, StoreSession, fingerprints_of
from tests.invariants.company import NAMESPACE, STORE, Company

CRM = f"{NAMESPACE}/crm"
ADDRESSES = ("ada@x.example", "bob@x.example")


@dataclass
class Crm:
    """The company's CRM, with the operator's session on it."""

    company: Company
    server: TrytonServer
    session: StoreSession
    parties: list[int]

    def look(self) -> StorePass:
        """Look once, as each interval; no sweep is due."""
        self.company.now += timedelta(seconds=1)
        requests = self.company.real_ledger.open_requests()
        return reconcile_store(self.session, requests, self.company.context, PassPlan(), primary=STORE)

    def erase(self, *addresses: str) -> None:
        """Erase people everywhere."""
        for address in addresses:
            self.company.request(address.partition("@")[0], email=address)
        for _ in range(4):
            self.company.visit()
            self.look()
            self.company.complete()
        assert not self.company.real_ledger.open_requests()

    def held(self) -> list[tuple[str | None, list[str]]]:
        """Return name and addresses of each of the parties, as Tryton shows them."""
        rows: list[dict[str, Any]] = self.server.rpc("crm", "model.party.party.read", self.parties, ["name"])
        mechanisms = self.server.rpc(
            "crm",
            "model.party.contact_mechanism.search_read",
            [["party", "in", self.parties]],
            0,
            None,
            None,
            ["party", "value"],
            context={"active_test": False},
        )
        names = {row["id"]: row["name"] for row in rows}
        values = {n: [m["value"] for m in mechanisms if m["party"] == n] for n in self.parties}
        return [(names[n], values[n]) for n in self.parties]


@pytest.fixture
def crm(built_programs: None, make_company: Callable[..., Company], tmp_path: Path) -> Iterator[Crm]:
    company = make_company()
    company.now = datetime.now(UTC)
    with TrytonServer(tmp_path / "tryton", databases=("crm",)) as server:
        port: Any = TrytonStore(
            server.url, "crm", server.user, server.password, store=CRM, keyring=company.keyring
        )
        session = StoreSession(
            StoreDescription(NAMESPACE, "crm", StoreRole.CRM, StoreOwner.SELF),
            port,
            fingerprints_of(company.keyring, CRM),
        )
        company.other_stores.append(session)
        people = (*ADDRESSES, "cleo@x.example")
        for address in people:
            company.sign_up(address)
        parties = server.create_parties("crm", [(address.title(), address, "en") for address in people])
        company.visit_until_safe()
        crm = Crm(company, server, session, parties)
        assert crm.look().swept, "the first look sweeps"
        yield crm


def test_a_crm_that_is_put_back_alone_is_found_by_the_next_look(crm: Crm, tmp_path: Path) -> None:
    copy = crm.server.copy("crm", tmp_path / "copy.sqlite")
    crm.company.now += timedelta(minutes=10)
    crm.erase(*ADDRESSES)
    cleo = crm.held()[2]
    crm.server.put_back("crm", copy)
    assert crm.held()[0] == ("Ada@X.Example", ["ada@x.example"])

    found = crm.look()

    assert (found.opened, found.swept) == (True, False)
    assert crm.look().gate_opened
    assert all("x.example" not in str(one).lower() for one in crm.held()[:2])
    assert crm.held()[2] == cleo
    (episode,) = crm.company.real_ledger.episodes(store=CRM)
    assert (episode.detected_by, episode.re_erased) == (DetectedBy.PROBE, 2)


def test_who_is_written_back_in_a_crm_is_erased_again_and_it_is_no_restore(crm: Crm) -> None:
    crm.erase(*ADDRESSES)
    crm.company.now += timedelta(hours=1)
    mechanism = {"party": crm.parties[0], "type": "email", "value": ADDRESSES[0]}
    crm.server.rpc("crm", "model.party.contact_mechanism.create", [mechanism])

    found = crm.look()

    assert (found.opened, found.re_erased) == (False, 1)
    assert crm.company.real_ledger.episodes(store=CRM) == []
