"""Ledgers and directories of dumps for the tests of workflows."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.workflows.backed_up import Backups, Source


@pytest.fixture
def make_backups(tmp_path: Path) -> Iterator[Callable[[], Backups]]:
    """Make companies, in memory where the machine has such: a ledger syncs with every append."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else str(tmp_path)
    made: list[Backups] = []
    with tempfile.TemporaryDirectory(dir=memory) as directory:

        def make() -> Backups:
            made.append(Backups(Path(directory) / f"home-{len(made)}"))
            return made[-1]

        yield make
        for one in made:
            one.close()


@pytest.fixture
def backups(make_backups: Callable[[], Backups]) -> Backups:
    """A company with a ledger and no source yet."""
    return make_backups()


@pytest.fixture
def nightly(backups: Backups) -> Source:
    """A source that lets the last of its snapshots go, too."""
    return backups.source()
