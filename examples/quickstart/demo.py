#!/usr/bin/env python
"""The quickstart as a story on real servers: `make demo`, or this file with the project's Python.

It exits with 0 only if everything was as promised. `--keep` leaves all running until Ctrl-C.
KUBECONFIG, where it is set, names the cluster that is used instead of one of the demo's own; the demo
makes the namespace `privacy` and the CRDs there, refuses where they exist, and removes them at the end.
"""

import signal
import sys
from pathlib import Path
from types import FrameType

CHECKOUT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Tell the story; return the exit code."""
    sys.path.insert(0, str(CHECKOUT))
    from examples.quickstart.story import tell  # noqa: PLC0415 - after its path is known

    def stop(number: int, _: FrameType | None) -> None:
        # Once: a second Ctrl-C must not interrupt the clearing up.
        for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(ending, signal.SIG_IGN)
        print("\nClearing up …", flush=True)
        raise SystemExit(128 + number)

    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, stop)
    return tell(CHECKOUT, keep="--keep" in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
