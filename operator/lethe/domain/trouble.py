"""Why an object can't be used now: one reason for its condition `Ready`, with a message for a person."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class TroubleReason(StrEnum):
    """The reasons of `Ready` of DataStores and BackupSources that can't be used (docs/troubleshooting.md)."""

    SECRET_MISSING = "SecretMissing"  # noqa: S105 - a reason
    MAPPING_INVALID = "MappingInvalid"
    MISCONFIGURED = "Misconfigured"
    UNREACHABLE = "Unreachable"
    DUPLICATE_PRIMARY = "DuplicatePrimary"
    DUPLICATE_SOURCE = "DuplicateSource"
    LEDGER_BEHIND = "LedgerBehind"
    LEDGER_ON_SAME_SERVER = "LedgerOnSameServer"
    INTERNAL_ERROR = "InternalError"
    """Lethe itself failed over this object, and over no other."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong, and what to do; nothing personal."""

    reason: TroubleReason
    message: str
