"""The kubectl that calls the plugin: the caller's context, namespace and rights."""

from __future__ import annotations

import json
import subprocess
import sys
from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    """What the exit code says."""

    FINE = 0
    """Done; of `restore status`: every store is safe to serve."""
    FAILED = 1
    USAGE = 2
    NOT_NOW = 3
    """Begun already, or nothing is begun."""
    NO_STORE = 4
    FORBIDDEN = 5
    CLOSED = 10
    """The gate is closed: something is waited for, which comes by itself or by `end`."""
    ASKS = 11
    """A person has to decide."""
    NO_ANSWER = 12
    """Lethe has not answered in time."""


class Refused(Exception):
    """What can't be done: names object, field and remedy."""

    def __init__(self, message: str, code: Exit) -> None:
        super().__init__(message)
        self.code = code


class Kubectl:
    """kubectl as the caller has it; `reads` and `writes` are the rights that it takes, in words."""

    def __init__(self, namespace: str | None, *, reads: str, writes: str) -> None:
        self._given = ["--namespace", namespace] if namespace else []
        self._reads, self._writes = reads, writes
        self.prefix = " ".join(["kubectl", *(["-n", namespace] if namespace else [])])
        self.at = f" -n {namespace}" if namespace else ""

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Return what kubectl printed. Raises `Refused`."""
        try:
            done = subprocess.run(
                ["kubectl", *self._given, *arguments],
                input=stdin,
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError:
            raise Refused("kubectl is not on the PATH; install it", Exit.FAILED) from None
        said, reads = done.stderr.strip(), arguments[0] in ("get", "wait")
        if done.returncode == 0:
            if said and not reads:  # a warning of the API server's
                sys.stderr.write(f"{said}\n")
            return done.stdout
        if "(Forbidden)" in said or "is forbidden" in said or "lacks the verb" in said:
            needed = self._reads if reads else self._writes
            raise Refused(f"{said}\nAsk for {needed}", Exit.FORBIDDEN)
        raise Refused(said, Exit.FAILED)

    def create(self, version: str, kind: str, name: str, **rest: Any) -> str:
        """Create an object; not by `apply`, which would copy a Secret's content into an annotation."""
        manifest = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **rest}
        return self.run("create", "--filename", "-", stdin=json.dumps(manifest))
