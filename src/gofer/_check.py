"""What a function that is to be started must not be.

What must stay true: `_core` says the same in the same words, of what it starts itself.
"""

from collections.abc import Callable
from functools import partial
from types import CodeType
from typing import Any, Final

__all__ = ["check_function", "refuse_coroutine_function"]

_CO_COROUTINE: Final = 0x80  # inspect.CO_COROUTINE, without importing inspect


def check_function(what: str, fn: Callable[..., object]) -> None:
    """`TypeError` if `fn` can not be called, or not be run that way."""
    if not callable(fn):
        raise TypeError(
            f"{what}() of {fn!r}: it can not be called; pass functions ({what}(f, ...), not "
            f"{what}(f(), ...))"
        )
    refuse_coroutine_function(what, fn)


def refuse_coroutine_function(what: str, fn: Callable[..., object]) -> None:
    """`TypeError` if calling `fn` would not run it; `what` is the function it was given to."""
    inner: Any = fn
    while isinstance(inner, partial):
        inner = inner.func
    code = getattr(inner, "__code__", None)
    if isinstance(code, CodeType) and code.co_flags & _CO_COROUTINE:
        raise TypeError(
            f"{what}() of the coroutine function {code.co_qualname}: calling it would not run it; "
            f"use gofer.aio (aio.await_({code.co_qualname}(...)) in a plain function)"
        )
