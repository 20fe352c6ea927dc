"""One measurement, in a process of its own: `harness.py CONTENDER OPERATION KIND N SECONDS`.

A contender is a module of `contenders` with

    OPERATIONS   name -> function(n), which does the operation with n items and returns when all of
                 it is done; what it returns, if anything, is nanoseconds to take off (sleeping)
    USES         name -> what stands for the operation there, when it is not obvious
    LEFT_OUT     name -> why there is none
    MOST         name -> the most items it can do

The result is a line of JSON. The collector of Python is left on, as programs have it.
"""

import gc
import importlib
import json
import sys
from collections.abc import Callable
from time import perf_counter_ns

import probe

Function = Callable[[int], int | None]


def timed(function: Function, n: int) -> int:
    start = perf_counter_ns()
    idle = function(n)
    return perf_counter_ns() - start - (idle or 0)


def rate(function: Function, n: int, seconds: float) -> tuple[int, float]:
    """Warms up with ever more items until it is known how many take `seconds`."""
    step, budget = n, seconds * 1e9
    function(n)  # the first time starts threads
    while (ns := timed(function, n)) < budget / 10:
        n *= 4
    n = max(round(n * budget / ns / step), 1) * step
    return n, timed(function, n) / n


def once(function: Function, n: int) -> tuple[int, float]:
    function(max(n // 100, 1))
    return n, timed(function, n) / n


def bytes_each(function: Function, n: int) -> tuple[int, float]:
    function(max(n // 1000, 1))
    gc.collect()
    before, probe.at_park = probe.memory(), None
    function(n)
    return n, (at_park() - before) / n


def million(function: Function, n: int) -> tuple[int, float]:
    function(max(n // 1000, 1))
    probe.at_park = None
    ns = timed(function, n)
    at_park()
    return n, (ns - probe.looking) / 1e9


def at_park() -> int:
    if probe.at_park is None:
        raise RuntimeError("they never were all parked")
    return probe.at_park


def measure(contender: str, operation: str, kind: str, n: int, seconds: float) -> dict[str, object]:
    module = importlib.import_module(f"contenders.{contender}")
    if reason := module.LEFT_OUT.get(operation):
        return {"left_out": reason}
    function = module.OPERATIONS[operation]
    n = min(n, module.MOST.get(operation, n))
    if kind == "rate":
        n, value = rate(function, n, seconds)
    else:
        n, value = {"once": once, "bytes": bytes_each, "million": million}[kind](function, n)
    result = {"n": n, "value": value, "uses": module.USES.get(operation, "")}
    if kind == "million":
        result["memory"] = probe.at_park
    if getattr(sys, "_is_gil_enabled", bool)() and "free-threading" in sys.version:
        result["uses"] += " (it turned the GIL on)"
    return result


if __name__ == "__main__":
    contender, operation, kind, n, seconds = sys.argv[1:]
    print(json.dumps(measure(contender, operation, kind, int(n), float(seconds))))
