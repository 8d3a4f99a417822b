"""The kinds of lethe.dev/v1alpha1."""

from lethe.api.model import Resource
from lethe.api.v1alpha1.backupsnapshot import BackupSnapshot
from lethe.api.v1alpha1.backupsource import BackupSource
from lethe.api.v1alpha1.datastore import DataStore
from lethe.api.v1alpha1.deletionrequest import DeletionRequest
from lethe.api.v1alpha1.legalrequest import LegalRequest
from lethe.api.v1alpha1.restoredrill import RestoreDrill
from lethe.api.v1alpha1.restoreevent import RestoreEvent

KINDS: tuple[type[Resource], ...] = (
    DataStore,
    DeletionRequest,
    RestoreEvent,
    BackupSource,
    BackupSnapshot,
    LegalRequest,
    RestoreDrill,
)
"""Every kind, in the order in which a person meets them."""

__all__ = [
    "KINDS",
    "BackupSnapshot",
    "BackupSource",
    "DataStore",
    "DeletionRequest",
    "LegalRequest",
    "RestoreDrill",
    "RestoreEvent",
]
