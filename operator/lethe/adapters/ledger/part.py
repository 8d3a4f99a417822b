"""What the parts of the ledger share: each answers about one subject, `SqlLedger` is all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime

from sqlalchemy import Connection

from lethe.adapters.ledger.chain import PeriodKeys
from lethe.ports.keys import Keyring


class PartOfLedger(ABC):
    """What a part needs of the whole."""

    _keyring: Keyring
    _keys: PeriodKeys
    _now: Callable[[], datetime]

    @abstractmethod
    def _reading(self) -> AbstractContextManager[Connection]:
        """Open a connection for reading."""

    @abstractmethod
    def _noting(self) -> AbstractContextManager[Connection]:
        """Open a transaction for what is no fact. Raises as `append` does."""
