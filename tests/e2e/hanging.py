"""An operator whose first listing hangs: `python -m tests.e2e.hanging FILE`; as long as the file is there."""

import asyncio
import os
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from lethe.bootstrap import run_operator
from lethe.logs import set_up_logs
from lethe.ports.backups import Backend, Deletion, Listing, Pin
from lethe.settings import read_settings


class Hanging:
    """A backend whose first listing is not answered while a file is there, as by a dead network volume."""

    hung = False

    def __init__(self, backend: Backend, while_there: Path) -> None:
        self._backend, self._while_there = backend, while_there

    def list(self) -> Listing:
        """List; the very first time once the file is gone."""
        if not Hanging.hung:
            Hanging.hung = True
            while self._while_there.exists():
                time.sleep(0.05)
        return self._backend.list()

    def delete(self, pins: Sequence[Pin]) -> Mapping[str, Deletion]:
        """Delete."""
        return self._backend.delete(pins)

    def gone(self, refs: Collection[str]) -> Mapping[str, str]:
        """Look."""
        return self._backend.gone(refs)

    def close(self) -> None:
        """Close."""
        self._backend.close()


def main() -> int:
    """Run the operator."""
    settings = read_settings(os.environ)
    set_up_logs(settings.log_level, settings.log_format)
    while_there = Path(sys.argv[1])
    return asyncio.run(run_operator(settings, wrap_backend=lambda backend: Hanging(backend, while_there)))


if __name__ == "__main__":
    sys.exit(main())
