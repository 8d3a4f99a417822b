"""Invariant 8: whoever is called purged is in no snapshot that was ever seen, under any interleaving."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.invariants.backups_machine import BackupsMachine

LOCAL = settings(
    max_examples=int(os.environ.get("LETHE_INTERLEAVINGS", "40")),
    stateful_step_count=30,
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=list(HealthCheck),
    # A failing example takes minutes to shrink; the steps that are noted tell the story as well.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    print_blob=True,
)


def test_who_is_purged_is_in_no_snapshot_nothing_dies_early_and_everything_ends(
    ledger_directory: Path,
) -> None:
    class Here(BackupsMachine):
        directory = ledger_directory

    run_state_machine_as_test(Here, settings=LOCAL)
