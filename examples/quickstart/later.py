"""The operator with clocks that the demo has turned forward: `python -m examples.quickstart.later SECONDS`.

Both clocks that Lethe reads, this host's and the API server's: with one alone it would send nothing.
"""

import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from lethe.bootstrap import run_operator
from lethe.logs import set_up_logs
from lethe.settings import read_settings


class _Later:
    """The API server, whose clock is ahead."""

    def __init__(self, cluster: Any, ahead: timedelta) -> None:
        self._cluster, self._ahead = cluster, ahead

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)

    async def server_time(self) -> datetime | None:
        told: datetime | None = await self._cluster.server_time()
        return None if told is None else told + self._ahead


def main(ahead: timedelta) -> int:
    """Run the operator as if it were later."""
    settings = read_settings(os.environ)
    set_up_logs(settings.log_level, settings.log_format)
    return asyncio.run(
        run_operator(
            settings,
            wrap_cluster=lambda cluster: _Later(cluster, ahead),
            clock=lambda: datetime.now(UTC) + ahead,
        )
    )


if __name__ == "__main__":
    sys.exit(main(timedelta(seconds=float(sys.argv[1]))))
