"""What tests of backends share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """An empty folder that every user may enter: each session of pytest closes those of all of them."""
    with tempfile.TemporaryDirectory(prefix="lethe-") as name:
        Path(name).chmod(0o755)
        yield Path(name)
