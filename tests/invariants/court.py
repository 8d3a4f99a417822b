"""Legal requests of a company in one process: what an authority asks, what counsel says, and the CRMs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any, LiteralString

import psycopg

from lethe.domain.identifiers import email_identifier
from lethe.domain.legal import LegalRecord
from lethe.domain.legal_facts import LegalKind
from lethe.domain.mapping import ClearRule, ClearTo, PiiKind, StoreRole, SubjectMapping
from lethe.domain.restores import Release
from lethe.workflows import store_pass
from lethe.workflows.legal.register import LegalOrder, NonDisclosure, PreservationWanted, end_holds, register
from lethe.workflows.restore.episode import explain
from lethe.workflows.store_session import StoreSession
from tests.invariants.company import NAMESPACE, STORE, Company, Wired

SECOND = timedelta(seconds=1)

_CLEAR = (
    ClearRule("name", PiiKind.LAST_NAME, ClearTo.SET_NULL),
    ClearRule("email", PiiKind.EMAIL, ClearTo.SET_NULL),
)
BY_KEY = SubjectMapping(
    table="contacts", key="id", identifiers={"primaryKey": "user_id", "email": "email"}, clear=_CLEAR
)
BY_EMAIL = SubjectMapping(table="contacts", key="id", identifiers={"email": "email"}, clear=_CLEAR)
ONLY_KEY = SubjectMapping(
    table="contacts",
    key="id",
    identifiers={"primaryKey": "user_id"},
    ignore=("contacts.email",),
    clear=_CLEAR[:1],
)


class Crm:
    """A further store, in which some people of the Primary have a contact."""

    def __init__(self, company: Company, name: str, mapping: SubjectMapping, url: str) -> None:
        self.company, self.name, self.mapping, self.url = company, name, mapping, url
        self.run(
            "CREATE TABLE contacts (id serial PRIMARY KEY, user_id integer UNIQUE, name text, email text, "
            "person uuid NOT NULL)"
        )
        self.join()

    def join(self) -> StoreSession:
        """Let the operator know of it (again, after its process began anew)."""
        mapping = replace(self.mapping, ignore=(*self.mapping.ignore, "contacts.person"))
        self.store = self.company.join(self.name, StoreRole.CRM, self.url, mapping)
        wired: Any = Wired(self.store.port, self.company.fuse, ["erase", "tick"])
        self.store.port = wired
        return self.store

    def run(self, statement: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement as the CRM does."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def copy(self, person: str, *, email: str | None = None) -> None:
        """Copy somebody from the Primary, with the address as it is there, or another."""
        [(key, known)] = self.company.sql("SELECT id, email FROM users WHERE person = %s", person)
        self.run(
            "INSERT INTO contacts (user_id, name, email, person) VALUES (%s, 'Name', %s, %s)",
            *(key, email or known, person),
        )

    def is_cleared(self, person: str) -> bool:
        """Tell whether nothing of her is left."""
        [(name, email)] = self.run("SELECT name, email FROM contacts WHERE person = %s", person)
        return name is None and (email is None or self.mapping is ONLY_KEY)

    def row_of(self, person: str) -> tuple[Any, ...]:
        """Return everything about somebody."""
        [row] = self.run("SELECT user_id, name, email FROM contacts WHERE person = %s", person)
        return row

    def visit(
        self, *, look: bool = True, sweep: bool = True, release: str | None = None
    ) -> store_pass.StorePass:
        """Visit it once."""
        company, errand = self.company, store_pass.PassPlan(look=look, sweep=sweep)
        if release is not None:
            last = company.real_ledger.episodes(store=self.store.name)[-1]
            explain(last, company.context, event="by-hand", reason="Drill")
            errand = replace(errand, releases={"by-hand": Release(release, "its-uid")})
        company.now = company.now + SECOND
        done = store_pass.reconcile_store(
            self.store,
            company.real_ledger.open_requests(),
            company.context,
            errand,
            primary=STORE,
        )
        assert self.store.trouble is None, self.store.trouble
        company.complete()
        return done


class Court:
    """Takes down what an authority asks of a company's persons."""

    def __init__(self, company: Company, *crms: Crm) -> None:
        self.company, self.crms = company, crms
        self.orders: dict[str, LegalOrder] = {}

    def hold(
        self,
        name: str = "le-1",
        *,
        key: int | str | None = None,
        email: str | None = None,
        stores: Sequence[str] = (),
        until: datetime | None = None,
        secretly: bool = False,
        gag_until: date | None = None,
    ) -> LegalRecord:
        """Order that somebody's data be preserved."""
        gag = NonDisclosure("18 U.S.C. 2705(b)", gag_until, "UTC" if gag_until else None)
        self.orders[name] = LegalOrder(
            namespace=NAMESPACE,
            name=name,
            uid=f"legal-{name}",
            spec_text=f"{name} {key}",
            kind=LegalKind.PRESERVATION,
            authority="County Sheriff's Office",
            level="Local",
            country="US",
            received_at=self.company.now,
            subject_id=None if key is None else str(key),
            identifier=None if email is None else email_identifier(email),
            gag=gag if secretly else None,
            preservation=PreservationWanted(tuple(f"{NAMESPACE}/{one}" for one in stores), until),
        )
        return self.apply(name)

    def apply(self, name: str = "le-1", **more: Any) -> LegalRecord:
        """Apply a manifest (again), with what is edited in it."""
        self.orders[name] = order = replace(self.orders[name], **more)
        company = self.company
        taken = register([order], company.unfused)[order.key]
        assert taken.record is not None
        assert taken.blocker is None
        return taken.record

    def lift(self, name: str = "le-1") -> None:
        """End a hold."""
        wanted = self.orders[name].preservation
        assert wanted is not None
        self.apply(name, preservation=replace(wanted, lifted="the case was closed"))

    def end_what_is_over(self) -> Sequence[str]:
        """End the holds whose day has come; return which."""
        company = self.company
        held = [one for one in company.real_ledger.legal_requests(open_only=True) if one.holding]
        return [one.key[1] for one in end_holds(held, company.unfused)]

    def record(self, name: str = "le-1") -> LegalRecord:
        """Return what the ledger knows of a legal request."""
        return self.company.real_ledger.legal_named([(NAMESPACE, name)])[NAMESPACE, name]

    def visits(self, times: int = 1, *, look: bool = True) -> None:
        """Let the operator visit every store, the Primary first."""
        for _ in range(times):
            self.company.visit(look=look)
            for crm in self.crms:
                crm.visit(look=look)


@contextmanager
def at_moment(company: Company, moment: int, do: Callable[[], object]) -> Iterator[list[str]]:
    """Do something at a moment between two side effects, counted from 1; yields the moments' names."""
    fuse, names = company.fuse, list[str]()

    def passing(name: str) -> None:
        names.append(name)
        if len(names) == moment:
            do()

    fuse.moment = passing  # type: ignore[method-assign]
    try:
        yield names
    finally:
        del fuse.moment
