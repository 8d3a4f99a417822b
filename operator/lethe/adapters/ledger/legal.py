"""The part of the ledger that knows of legal requests."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, select

from lethe.adapters.ledger.docs import by_namespace
from lethe.adapters.ledger.legal_projection import legal_record
from lethe.adapters.ledger.part import PartOfLedger
from lethe.adapters.ledger.schema import legal_requests
from lethe.domain.legal import LegalRecord


class LegalInLedger(PartOfLedger):
    """What `SqlLedger` answers about legal requests."""

    def legal_requests(
        self, *, namespace: str | None = None, open_only: bool = False
    ) -> Sequence[LegalRecord]:
        """Return legal requests (`None`: of all namespaces), oldest first.

        The open ones are asked for in every pass that erases: where there are none, nothing is opened.
        """
        query = _RECORDS.order_by(legal_requests.c.registered_sequence)
        if namespace is not None:
            query = query.where(legal_requests.c.namespace == namespace)
        if open_only:
            query = query.where(legal_requests.c.open.is_(True))
        with self._reading() as connection:
            return self._legal_records(connection, query)

    def legal_named(self, names: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], LegalRecord]:
        """Return the legal requests of these (namespace, name), as far as they are known."""
        found: dict[tuple[str, str], LegalRecord] = {}
        with self._reading() as connection:
            for namespace, chunk in by_namespace(names):
                named = (legal_requests.c.namespace == namespace) & legal_requests.c.name.in_(chunk)
                records = self._legal_records(connection, _RECORDS.where(named))
                found |= {record.key: record for record in records}
        return found

    def _legal_records(self, connection: Connection, query: Select[Any]) -> list[LegalRecord]:
        return [legal_record(self._keyring, legal, doc) for legal, doc in connection.execute(query)]


_RECORDS = select(legal_requests.c.legal, legal_requests.c.doc)
