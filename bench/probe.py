"""What contenders ask of the harness: how many workers, and to look at the process now."""

import os

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


at_park = 0


def parked() -> None:
    """A contender calls this when all its goroutines are parked."""
    global at_park
    at_park = memory()
