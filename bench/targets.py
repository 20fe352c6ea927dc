"""What gofer has to reach, as ratios of minima of the same run."""

from dataclasses import dataclass

from operations import (
    CALLS,
    FREE_ONE,
    FREE_TWO,
    GIL,
    PATCHED,
    PEERS,
    SERVED,
    SERVED_BY_TWO,
    SERVERS,
    SERVERS_ONE,
    SERVERS_TWO,
    Operation,
    Setting,
)


@dataclass(frozen=True)
class Bound:
    """At most `limit` times the cost of the best of `contenders`; at_least: so many times as fast.

    Without a setting it is a limit on the number itself.
    """

    limit: float
    setting: Setting | None = None
    operation: str = ""
    contenders: tuple[str, ...] = ()
    at_least: bool = False
    title: str = ""


@dataclass(frozen=True)
class Target:
    title: str
    setting: Setting
    operation: str
    bounds: tuple[Bound, ...]
    unit: str = "ns"
    one_will_do: bool = False  # of the bounds


# operation, title, times Go, times the best peer
RATIOS = (
    ("spawn_1000", "spawn and wait, batches of 1,000", 0.8, 0.1),
    ("spawn_100000", "spawn 100,000, then wait", 0.5, 0.1),
    ("yield_2", "yield", 1.4, 0.6),
    ("chan_0", "unbuffered channel, an item", 1.0, 0.6),
    ("chan_1000", "buffered channel, an item", 3.0, 0.9),
)
BYTES = 2400
STACKFUL = ("gevent", "greenlet", "runloom")
FREE_THREADED = 1.5  # what a build without the GIL may cost more


def targets() -> list[Target]:
    return [
        *one_worker(GIL, 1),
        *one_worker(FREE_ONE, FREE_THREADED),
        *two_workers(),
        *servers(),
        *library(),
    ]


def one_worker(setting: Setting, allowance: float) -> list[Target]:
    """The other side is always that of the ordinary build."""
    found = [
        Target(
            f"{setting.interpreter}: {title}",
            setting,
            operation,
            (
                Bound(allowance * go, GIL, operation, ("go",)),
                Bound(allowance * peer, GIL, operation, PEERS),
            ),
        )
        for operation, title, go, peer in RATIOS
    ]
    least = Bound(allowance, GIL, "park", STACKFUL)
    parked = (Bound(allowance * BYTES), least)
    return [
        *found,
        Target(f"{setting.interpreter}: a parked goroutine", setting, "park", parked, "bytes"),
    ]


def two_workers() -> list[Target]:
    def against_threads(operation: str, title: str, other: str, used: str) -> Target:
        bound = Bound(1, FREE_TWO, other, ("threads",), title=used)
        return Target(f"3.13t, two workers: {title}", FREE_TWO, operation, (bound,))

    fork_join = Bound(0.95, FREE_TWO, "fork_join_2", ("threads",), True, "two bare threads")
    return [
        Target("3.13t, two workers: fork-join, as fast", FREE_TWO, "fork_join_2", (fork_join,)),
        against_threads("ping_pong", "ping-pong", "ping_pong", "two SimpleQueues"),
        against_threads(
            "chan_0_across", "unbuffered channel", "chan_0_across", "SimpleQueues, acknowledged"
        ),
        against_threads("chan_1000_across", "buffered channel", "chan_1000_across", "SimpleQueue"),
        against_threads("fan_out", "fan-out", "fan_out", "SimpleQueue"),
    ]


def servers() -> list[Target]:
    """As speeds: how many times as fast as they."""

    def faster(setting: Setting, operation: str, *peers: tuple[float, str]) -> tuple[Bound, ...]:
        return tuple(
            Bound(times, setting, operation, (peer,), at_least=True) for times, peer in peers
        )

    peers = ((1.5, "gevent"), (1.3, "uvloop"), (1.0, "runloom"))
    one = [
        Target(f"3.13: {o.title}", SERVERS, o.name, faster(SERVERS, o.name, *peers), o.unit)
        for o in SERVED
    ]
    two = [
        Target(
            f"3.13t, two workers: {o.title}",
            SERVERS_TWO,
            o.name,
            (
                Bound(1.6, SERVERS_ONE, o.name, ("gofer",), True, "one worker"),
                Bound(0.95, SERVERS_TWO, o.name, ("gofer-processes",), True, "two bare processes"),
            ),
            one_will_do=True,
        )
        for o in SERVED_BY_TWO
    ]
    return one + two


def library() -> list[Target]:
    """Calls on threads, and the standard library as it is used."""

    def target(setting: Setting, o: Operation, *peers: tuple[float, str]) -> Target:
        bounds = (Bound(times, setting, o.name, (peer,), at_least=True) for times, peer in peers)
        return Target(f"3.13: {o.title}", setting, o.name, tuple(bounds))

    peers = ((1.5, "gevent"), (1.3, "uvloop"), (1.0, "runloom"))
    return [
        *(target(CALLS, o, *peers) for o in CALLS.operations),
        *(target(PATCHED, o, peers[0], peers[2]) for o in PATCHED.operations),
    ]
