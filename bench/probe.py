"""What contenders ask of the harness: how many workers, and to look at the process now."""

import os
from time import perf_counter_ns

WORKERS = int(os.environ.get("BENCH_WORKERS", "1"))

# The task of the fork-join measurements: pure Python, about half a millisecond.
WORK = 10_000


def work() -> int:
    total = 0
    for i in range(WORK):
        total += i * i % 7
    return total


def memory() -> int:
    """Bytes of memory that this process has for itself (its share of what it has with others)."""
    with open("/proc/self/smaps_rollup") as rollup:
        for line in rollup:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    raise OSError("no Pss in smaps_rollup")


at_park: int | None = None  # what `memory` said then
looking = 0  # nanoseconds that it took to find out


def parked() -> None:
    """A contender calls this when all its goroutines are parked."""
    global at_park, looking
    start = perf_counter_ns()
    at_park = memory()
    looking = perf_counter_ns() - start
