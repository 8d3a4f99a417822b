"""What the operator costs with nothing to do: memory, and the time from its start until it is ready."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench.company import Company, company
from bench.figures import Figure, median_figure
from bench.measuring import peak_resident, private, processor_seconds, resident

BENCH = "idle"


def bench_idle(*, starts: int, rest: float) -> list[Figure]:
    """Start `starts` times over an existing ledger and three DataStores; look after `rest` seconds."""
    to_ready, work, memory, own, peaks, busy = ([] for _ in range(6))
    with tempfile.TemporaryDirectory(prefix="lethe-bench-") as folder, company(Path(folder)) as one:
        one.employ(["somebody@example.org"])
        one.apply_stores()
        first = one.operator.time_to_ready()
        one.wait_for_stores()
        one.operator.stop()
        for _ in range(starts):
            to_ready.append(one.operator.time_to_ready())
            work.append(processor_seconds(one.operator.pid))
            busy.append(_processor_share(one, rest))
            pid = one.operator.pid
            memory.append(resident(pid))
            own.append(private(pid))
            peaks.append(peak_resident(pid))
            one.operator.stop()
    return [
        Figure(BENCH, "first start to ready", first, "s"),
        median_figure(BENCH, "start to ready", to_ready, "s", aim=3),
        median_figure(BENCH, "processor until ready", work, "s"),
        median_figure(BENCH, "memory (RSS)", memory, "MiB", aim=110),
        median_figure(BENCH, "of it shared with nobody", own, "MiB"),
        median_figure(BENCH, "peak since start", peaks, "MiB"),
        median_figure(BENCH, "processor while idle", busy, "% of a core"),
    ]


def _processor_share(one: Company, rest: float) -> float:
    """Wait, and return the share of one core that the operator takes in the second half of the time."""
    time.sleep(rest / 2)
    before = processor_seconds(one.operator.pid)
    time.sleep(rest / 2)
    return (processor_seconds(one.operator.pid) - before) / (rest / 2) * 100
