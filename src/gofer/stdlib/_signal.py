"""Waiting for signals: `sigwait`, `sigwaitinfo`, `sigtimedwait` and `pause`.

A signal that is blocked stays with the kernel until somebody takes it, and a descriptor tells when
it is there. One that is not blocked is given to who waits instead of to its handler
(csrc/patch_signal.c). A goroutine waits for both, since other threads may block other signals.

What must stay true: a signal that was given and is not wanted any more is sent once more.
"""

import signal
from collections.abc import Callable, Iterable
from os import close, getpid, kill
from typing import Any, Final

from gofer import _core
from gofer.stdlib._limit import Limit

__all__ = ["STAND_INS"]

_poll: Any = vars(signal).get("sigtimedwait")  # with no time it does what it did before


def _mask(signals: Iterable[int]) -> int:
    mask = 0
    for number in signals:
        mask |= 1 << number - 1
    return mask


def _send_again(given: Any) -> None:
    if given is not None:
        kill(getpid(), given[0])


def _take(signals: list[int], seconds: float | None) -> Any:
    """The first of them, as `struct_siginfo`; None when the time is over."""
    info = _poll(signals, 0)  # also complains of what is no signal
    if info is not None:
        return info
    mask = _mask(signals)
    blocked = _core.signal_fd(mask)
    try:
        number, told = _core.signals_begin(mask, True)
        try:
            info = _take_blocked(
                signals, [(blocked, _core.FD_READ), (told, _core.FD_READ)], seconds
            )
        except BaseException:
            _send_again(_core.signals_end(number))
            raise
        given = _core.signals_end(number)
    finally:
        close(blocked)
    if info is None:
        return None if given is None else signal.struct_siginfo(given)
    _send_again(given)
    return info


def _take_blocked(signals: list[int], fds: list[tuple[int, int]], seconds: float | None) -> Any:
    """One that is blocked; None when another has been given, or the time is over."""
    limit = Limit(seconds)
    while True:
        left = limit.left
        _, told = _core.wait_fds(fds, left)
        info = _poll(signals, 0)
        if info is not None or told or left == 0:
            return info


def _sigwait(original: Callable[..., Any], *args: Any) -> Any:
    signals = _as_list(args)
    return original(*args) if signals is None else _take(signals, None)[0]


def _sigwaitinfo(original: Callable[..., Any], *args: Any) -> Any:
    signals = _as_list(args)
    return original(*args) if signals is None else _take(signals, None)


def _sigtimedwait(original: Callable[..., Any], *args: Any) -> Any:
    signals = _as_list(args[:1])
    seconds = args[1] if len(args) == 2 else None
    if signals is None or not (isinstance(seconds, (int, float)) and 0 < seconds < 1e9):
        return original(*args)
    return _take(signals, seconds)


def _as_list(args: tuple[Any, ...]) -> list[int] | None:
    """None: the original deals with what is wrong."""
    try:
        (signals,) = args
        numbers: list[Any] = list(signals)
    except (TypeError, ValueError):
        return None
    return numbers if numbers and all(isinstance(number, int) for number in numbers) else None


def _pause(original: Callable[..., Any]) -> None:
    """Until a handler has been run: those of Python, and the program's own in C."""
    handled = [n for n in signal.valid_signals() if signal.getsignal(n) not in _NO_HANDLER]
    number, told = _core.signals_begin(_mask(handled), False)
    try:
        _core.wait_fd(told, _core.FD_READ, None)
    finally:
        _core.signals_end(number)


_NO_HANDLER: Final = (signal.SIG_DFL, signal.SIG_IGN)

STAND_INS: Final[dict[str, Callable[..., Any]]] = (
    {
        "_signal.sigwait": _sigwait,
        "_signal.sigwaitinfo": _sigwaitinfo,
        "_signal.sigtimedwait": _sigtimedwait,
        "_signal.pause": _pause,
    }
    if hasattr(_core, "signal_fd")
    else {}
)
