"""What is measured: the operations, and the settings (interpreter, workers) they are measured in.

An operation is a name that contenders answer to, a number of items and a kind:

    rate     run with as many items as fit the time given, a multiple of `n`: ns an item
    once     run once with exactly `n` items (after a hundredth of it, to warm up): ns an item
    bytes    `n` goroutines parked at once: growth of the process, bytes a goroutine
    million  `n` goroutines started, parked, woken, ended: seconds, and the size of the process
"""

from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["rate", "once", "bytes", "million", "served", "idle", "idle bytes"]


@dataclass(frozen=True)
class Operation:
    name: str
    title: str
    kind: Kind = "rate"
    n: int = 1_000
    workers: int = 1
    rounds: int | None = None  # at most so many, because it is slow
    load: str = ""  # what the load generator does with the contender's server (serving.py)
    size: int = 0  # of a message, in bytes
    client: bool = False  # wants a server, whose port is in $BENCH_PORT

    @property
    def unit(self) -> str:
        return {"bytes": "bytes", "idle bytes": "bytes", "million": "s"}.get(self.kind, "ns")


ONE_WORKER = (
    Operation("spawn_1000", "spawn and wait, batches of 1,000"),
    Operation("spawn_100000", "spawn 100,000, then wait", "once", 100_000),
    Operation("yield_2", "yield, 2 goroutines"),
    Operation("yield_1000", "yield, 1,000 goroutines", n=200_000),
    Operation("chan_0", "unbuffered channel, an item"),
    Operation("chan_1000", "buffered channel (1,000), an item"),
    Operation("select_2", "select over 2 channels, an item"),
    Operation("select_8", "select over 8 channels, an item"),
    Operation("mutex", "mutex, uncontended"),
    Operation("mutex_10", "mutex, 10 goroutines, held across a yield"),
    Operation("cancel_scope", "a cancel scope, entered and left"),
    Operation("timeout_ready", "a time-out around a receive that is ready"),
    Operation(
        "cancel_parked", "cancelling 100,000 that are parked, each", "once", 100_000, rounds=3
    ),
    Operation("contexts", "10,000 contexts made and cancelled, each", "once", 10_000),
    Operation("timers", "100,000 sleeps at once, a sleep", "once", 100_000, rounds=3),
    Operation("park", "a parked goroutine, shallow", "bytes", 100_000, rounds=2),
    Operation(
        "park_deep", "a parked goroutine below 5 frames with locals", "bytes", 100_000, rounds=2
    ),
    Operation("million", "1,000,000: spawn, park, wake, end", "million", 1_000_000, rounds=1),
)

BLOCKING = (
    Operation("blocking", "a call on a thread of the pool", n=100),
    Operation("blocking_100", "the same by 100 at a time, a call"),
)

SERVED = (
    Operation("echo_1", "echo of 1 KB, 64 connections", "served", load="echo", size=1_000),
    Operation("echo_10", "echo of 10 KB, 64 connections", "served", load="echo", size=10_000),
    Operation("echo_100", "echo of 100 KB, 64 connections", "served", load="echo", size=100_000),
    Operation("http", "HTTP, 64 connections that stay, a request", "served", load="http"),
    Operation("http_new", "HTTP, a new connection each time, a request", "served", load="new"),
    Operation("idle", "10,000 connections woken, each", "idle", 10_000, load="idle", rounds=3),
    Operation(
        "idle_bytes", "10,000 connections idle, each", "idle bytes", 10_000, load="idle", rounds=2
    ),
)
SERVED_BY_TWO = tuple(
    replace(operation, workers=2) for operation in SERVED if operation.kind == "served"
)

LIBRARY = (
    Operation("requests", "1,000 times requests.get at once, each", "once", 1_000, client=True),
    Operation("lock", "threading.Lock, uncontended"),
    Operation("queue", "queue.Queue(1,000), an item"),
    Operation("simple_queue", "queue.SimpleQueue, an item"),
)

TWO_WORKERS = (
    Operation("ping_pong", "ping-pong between two workers, a round trip", workers=2),
    Operation("chan_0_across", "unbuffered channel between two workers, an item", workers=2),
    Operation("chan_1000_across", "buffered channel between two workers, an item", workers=2),
    Operation("fan_out", "one producer, 4 consumers on 2 workers, an item", workers=2),
    Operation("fork_join_1", "fork-join of CPU-bound tasks, 1 worker, a task", n=200, workers=1),
    Operation("fork_join_2", "fork-join of CPU-bound tasks, 2 workers, a task", n=200, workers=2),
)


@dataclass(frozen=True)
class Setting:
    name: str
    interpreter: str
    operations: tuple[Operation, ...]
    contenders: tuple[str, ...]


OURS = ("gofer", "gofer-processes")
PEERS = ("asyncio", "uvloop", "gevent", "greenlet", "runloom", "trio", "threads")
GIL = Setting("3.13, one worker", "3.13", ONE_WORKER, ("gofer", "go", *PEERS))
CALLS = Setting(
    "3.13, calls that block",
    "3.13",
    BLOCKING,
    ("gofer", "asyncio", "uvloop", "gevent", "runloom", "trio", "threads"),
)
FREE_ONE = Setting("3.13t, one worker", "3.13t", ONE_WORKER, ("gofer", "runloom", "tonio"))
FREE_TWO = Setting(
    "3.13t, two workers", "3.13t", TWO_WORKERS, ("gofer", "go", "runloom", "tonio", "threads")
)
STREAMS = ("asyncio", "uvloop", "gevent", "runloom", "trio", "threads")
PROTOCOLS = ("asyncio-protocol", "uvloop-protocol")
SERVERS = Setting(
    "3.13, servers, one worker", "3.13", SERVED, ("gofer", "go", *STREAMS, *PROTOCOLS)
)
PATCHED = Setting(
    "3.13, the standard library under patch()",
    "3.13",
    LIBRARY,
    ("gofer", "gevent", "runloom", "threads"),
)
SERVERS_ONE = Setting(
    "3.13t, servers, one worker",
    "3.13t",
    tuple(operation for operation in SERVED if operation.kind == "served"),
    ("gofer", "runloom"),
)
SERVERS_TWO = Setting(
    "3.13t, servers, two workers",
    "3.13t",
    SERVED_BY_TWO,
    (*OURS, "go", "runloom", "threads"),
)
SETTINGS = (GIL, CALLS, FREE_ONE, FREE_TWO, SERVERS, PATCHED, SERVERS_ONE, SERVERS_TWO)

# What one could expect here and will not find.
NOT_MEASURED = {
    "pyroutine": "the package of that name on PyPI is another one (it repeats mouse clicks)",
    "tonio on 3.13": "it says that it is for free-threaded Python only; measured on 3.13t",
    "the others on 3.13t": "they have one worker, and are measured on the faster ordinary build",
    "asyncio's eager tasks": "one that never waits is done within create_task: nothing was spawned",
}
