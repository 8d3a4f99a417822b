"""What every use case is given: where it records, with which keys, as whom, and what time it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from lethe.ports.keys import Keyring
from lethe.ports.ledger import Ledger


@dataclass(frozen=True, slots=True)
class PassContext:
    """The surroundings of one pass. `token` is the fencing token that the ledger gave this process.

    `clock` is asked at the moment that is recorded. A pass may take hours: of a time from its beginning
    it would be believed that somebody was erased before she was, and so that a snapshot does not hold her.
    """

    ledger: Ledger
    keyring: Keyring
    token: int
    clock: Callable[[], datetime]
