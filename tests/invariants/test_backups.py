"""Invariant 8: whoever is called purged is in no snapshot that was ever seen, under any interleaving."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.invariants.backups_machine import BackupsMachine
from tests.search.drawing import run_machine


@pytest.fixture
def machine(ledger_directory: Path) -> type[BackupsMachine]:
    """Return the machine, at home in this folder."""
    BackupsMachine.directory = ledger_directory
    return BackupsMachine


@pytest.mark.machine
def test_who_is_purged_is_in_no_snapshot_nothing_dies_early_and_everything_ends(
    machine: type[BackupsMachine],
) -> None:
    run_machine(machine, examples=40, steps=30)
