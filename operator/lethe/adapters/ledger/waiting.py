"""Connections to a ledger in PostgreSQL that give up a server which has stopped answering.

A server that is frozen, or behind a wall that drops packets, is not noticed by what TCP has for it, and a
statement of the ledger may take long for good reason. So who has heard nothing for a while asks on a second
connection whether the server answers anybody. Without its ledger an operator ends, so that another can work.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.abc import RV, PQGen

ASK_AFTER_SECONDS = 10.0
"""How long nothing is heard before it is asked whether the server answers anybody, and again after that."""
ASK_SECONDS = 8.0
"""How long a second connection may take to be made, and its answer to come."""
GIVE_UP_SECONDS = 25.0
"""After how long without any answer a server is given up."""


class LedgerConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection of which every wait ends; raises `psycopg.OperationalError` where the server is silent."""

    again: Callable[[], LedgerConnection] | None = None
    """Makes a second connection to the same server; `None`: nobody is asked."""
    limit = float("inf")
    """After how many seconds a wait ends although nobody was asked."""

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """See `psycopg.Connection.wait`."""
        return super().wait(self._watched(gen), interval, timeout)

    def _watched(self, gen: PQGen[RV]) -> PQGen[RV]:
        began = heard = asked = time.monotonic()
        try:
            state = next(gen)
            while True:
                ready = yield state
                now = time.monotonic()
                if ready:
                    heard = asked = now
                elif self.again is not None and now - asked >= ASK_AFTER_SECONDS:
                    asked = now
                    if self._answers(self.again):
                        heard = time.monotonic()
                if time.monotonic() - heard >= GIVE_UP_SECONDS or now - began >= self.limit:
                    self.close()  # at once: whoever comes to clean up must not wait anew
                    raise psycopg.OperationalError("the server does not answer")
                state = gen.send(ready)
        except StopIteration as ended:
            result: RV = ended.value
            return result

    @staticmethod
    def _answers(connect: Callable[[], LedgerConnection]) -> bool:
        """Tell whether the server answers somebody; one that refuses has answered."""
        try:
            other = connect()
        except psycopg.Error as error:
            return error.sqlstate is not None
        other.limit = ASK_SECONDS
        try:
            other.execute("SELECT 1")
        except psycopg.Error:
            return False
        finally:
            other.close()
        return True


def connected(*arguments: Any, **settings: Any) -> LedgerConnection:
    """Return a new connection; arguments as of `psycopg.connect`."""

    def again() -> LedgerConnection:
        return LedgerConnection.connect(*arguments, **{**settings, "connect_timeout": int(ASK_SECONDS)})

    made = LedgerConnection.connect(*arguments, **settings)
    made.again = again
    return made
