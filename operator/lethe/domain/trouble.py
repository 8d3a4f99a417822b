"""Why a DataStore or a BackupSource can't be used now, in one word and for a person."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class TroubleReason(StrEnum):
    """The reason of `Ready=False` while a store or a source can't be used."""

    SECRET_MISSING = "SecretMissing"  # noqa: S105 - a reason
    MAPPING_INVALID = "MappingInvalid"
    UNREACHABLE = "Unreachable"
    IN_RECOVERY = "InRecovery"
    """The server answers as a standby: it may show what a restore brings back, and can't be looked at."""
    MISCONFIGURED = "Misconfigured"
    DUPLICATE_PRIMARY = "DuplicatePrimary"
    DUPLICATE_SOURCE = "DuplicateSource"
    OTHER_NAME = "OtherName"
    """The store was known under another name, and what was erased in it is remembered under that."""
    LEDGER_ON_SAME_SERVER = "LedgerOnSameServer"
    LEDGER_BEHIND = "LedgerBehind"
    SUSPENDED = "Suspended"
    """A person wants it left alone for a while."""
    RESTORE_UNDERWAY = "RestoreUnderway"
    """It is being restored: a person says when that has ended. A drill waits for its end."""
    INTERNAL_ERROR = "InternalError"
    """A defect of Lethe; what it was about is tried again."""

    @property
    def stalls(self) -> bool:
        """Tell whether only a person can end it, so that trying again is of no use."""
        return self not in _PASSING


_PASSING = frozenset(
    {
        TroubleReason.SECRET_MISSING,
        TroubleReason.UNREACHABLE,
        TroubleReason.SUSPENDED,
        TroubleReason.RESTORE_UNDERWAY,
        TroubleReason.IN_RECOVERY,
        TroubleReason.INTERNAL_ERROR,
    }
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What keeps a store or a source from being used. `message` says what is wrong and what to do."""

    reason: TroubleReason
    message: str

    @classmethod
    def of_defect(cls, defect: BaseException) -> Trouble:
        """Return what is said of a defect of Lethe: its type alone, for its text may hold personal data."""
        return cls(
            TroubleReason.INTERNAL_ERROR,
            f"Lethe failed here ({type(defect).__name__}); see its log and report it",
        )
