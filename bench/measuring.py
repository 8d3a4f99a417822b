"""Clocks and memory of processes, from the kernel's own accounts (Linux)."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

MIB = 1024 * 1024


class Stopwatch:
    """Seconds since it was made, or since the last `lap`."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def lap(self) -> float:
        """Return the seconds since the last lap, and begin another."""
        now = time.perf_counter()
        passed, self._began = now - self._began, now
        return passed


def resident(pid: int | None = None) -> float:
    """Return the MiB of a process that are in memory now (`VmRSS`); `None`: of this one."""
    return _kilobytes(pid, "VmRSS") / 1024


def peak_resident(pid: int | None = None) -> float:
    """Return the most MiB that a process ever had in memory, or since `forget_peak` (`VmHWM`)."""
    return _kilobytes(pid, "VmHWM") / 1024


def forget_peak() -> None:
    """Let this process's peak begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def private(pid: int) -> float:
    """Return the MiB that a process shares with nobody: what one more replica costs a node."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    sizes = [int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty"))]
    return sum(sizes) / 1024


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def processor_seconds(pid: int) -> float:
    """Return the seconds of processor that a process and all its children, ended ones too, have taken."""
    processes: dict[int, list[str]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            # The name, in parentheses, may hold spaces; state and parent follow it.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            processes[int(entry.name)] = fields

    def ticks(of: int) -> int:
        own = sum(int(field) for field in processes[of][11:15])  # those of children that ended among them
        return own + sum(ticks(child) for child, fields in processes.items() if fields[1] == str(of))

    return ticks(pid) / os.sysconf("SC_CLK_TCK")


def _kilobytes(pid: int | None, field: str) -> int:
    status = Path(f"/proc/{pid or 'self'}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{field}:"))
