"""Whether this machine can run a node: `python -m devtools.node.possible` tries it, and says why it can't.

CI asks this first, so that a machine which forbids mounts or control groups is told from software that fails.
"""

import sys

from devtools.node import images
from devtools.node.node import Node, obstacles
from devtools.servers.children import CommandFailed, ServerFailed, wait_until

NOT_HERE = 3
"""The exit code where it can't; any other is an error."""

TRIAL = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "trial", "namespace": "default"},
    "spec": {"containers": [{"name": "trial", "image": images.PAUSE, "imagePullPolicy": "Never"}]},
}


def blocker() -> str | None:
    """Return why no pod can run here; `None` if one ran."""
    reasons = obstacles()
    if reasons:
        return "; ".join(reasons)
    try:
        with Node() as node:
            node.apply(TRIAL)
            wait_until(lambda: node.phase("trial") == "Running", what="a trial pod to run")
    except (CommandFailed, ServerFailed, OSError) as failed:
        return f"a node was tried, and failed: {str(failed).splitlines()[0]}"
    return None


if __name__ == "__main__":
    found = blocker()
    sys.stdout.write(f"{found or ''}\n")
    sys.exit(0 if found is None else NOT_HERE)
