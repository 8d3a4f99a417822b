"""A real node to try things by hand, until Ctrl-C: `python -m devtools.node`. Root, and Debian's packages."""

import signal
import sys
import threading

from devtools.node.node import Node, obstacles


def main() -> None:
    """Run a node until somebody ends it."""
    reasons = obstacles()
    if reasons:
        raise SystemExit("; ".join(reasons))
    stopped = threading.Event()
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: stopped.set())
    with Node() as node:
        sys.stdout.write(f"export KUBECONFIG={node.kubeconfig}\n")
        sys.stdout.flush()
        stopped.wait()


if __name__ == "__main__":
    main()
