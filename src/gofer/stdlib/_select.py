"""`select.select`, `poll` and `epoll` objects.

Each asks the original without waiting, parks until one of the descriptors is ready, and asks again.
"""

import select
from collections.abc import Callable
from typing import Any, Final

from gofer import _core
from gofer.stdlib._limit import Limit

__all__ = ["STAND_INS"]


def _fileno(o: Any) -> int:
    return o if isinstance(o, int) else o.fileno()


def _events(asked: list[Any]) -> list[tuple[int, int]]:
    wanted: dict[int, int] = {}
    for objects, event in zip(asked, (_core.FD_READ, _core.FD_WRITE, _core.FD_URGENT), strict=True):
        for o in objects:
            fd = _fileno(o)
            wanted[fd] = wanted.get(fd, 0) | event
    return list(wanted.items())


def _select(original: Callable[..., Any], *args: Any) -> Any:
    seconds = args[3] if len(args) == 4 else None
    if len(args) not in (3, 4) or not _is_limit(seconds):
        return original(*args)
    try:
        asked: list[Any] = [_as_sequence(objects) for objects in args[:3]]
    except TypeError:
        return original(*args)
    limit = Limit(seconds)
    ready = original(*asked, 0)  # the lists themselves: fileno() may change them
    asked = [list(objects) for objects in asked]  # who changes them from now on comes too late
    while not any(ready) and (left := limit.left) != 0:
        _core.wait_fds(_events(asked), left)
        ready = original(*asked, 0)
    return ready


def _as_sequence(objects: Any) -> Any:
    kinds: Any = (list, tuple)
    return objects if isinstance(objects, kinds) else list(objects)


def _is_limit(seconds: Any) -> bool:
    """Whether to wait, for so long; the original deals with 0 and with what is wrong."""
    return seconds is None or (isinstance(seconds, (int, float)) and 0 < seconds < 1e9)


def _from_poll(events: int) -> int:
    fd_events = 0
    if events & (select.POLLIN | select.POLLRDNORM):
        fd_events |= _core.FD_READ
    if events & (select.POLLOUT | select.POLLWRNORM):
        fd_events |= _core.FD_WRITE
    if events & select.POLLPRI or not fd_events:  # errors are told to those who ask for something
        fd_events |= _core.FD_URGENT
    return fd_events


def _poll(original: Callable[..., Any], poll: Any, *args: Any) -> Any:
    ms = args[0] if args else None
    if isinstance(ms, (int, float)) and ms < 0:
        ms = None
    if len(args) > 1 or not _is_limit(ms):
        return original(poll, *args)
    limit = Limit(None if ms is None else ms / 1000)
    while True:
        ready = original(poll, 0)
        left = limit.left
        if ready or left == 0:
            return ready
        wanted = [(fd, _from_poll(e)) for fd, e in _core.poll_registered(poll).items()]
        _core.wait_fds(wanted, left)


def _epoll(original: Callable[..., Any], epoll: Any, *args: Any, **kwargs: Any) -> Any:
    seconds = args[0] if args else kwargs.get("timeout")
    most = args[1] if len(args) > 1 else kwargs.get("maxevents", -1)
    if isinstance(seconds, (int, float)) and seconds < 0:
        seconds = None
    if len(args) > 2 or kwargs.keys() - {"timeout", "maxevents"} or not _is_limit(seconds):
        return original(epoll, *args, **kwargs)
    limit = Limit(seconds)
    while True:
        ready = original(epoll, 0, most)
        left = limit.left
        if ready or left == 0:
            return ready
        _core.wait_fd(epoll.fileno(), _core.FD_READ, left)


STAND_INS: Final[dict[str, Callable[..., Any]]] = {
    "select.select": _select,
    "select.poll.poll": _poll,
    "select.epoll.poll": _epoll,
}
