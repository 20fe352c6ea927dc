"""gofer.context: what it refuses, and how it shows itself."""

import functools
import math
import time
from datetime import timedelta

import pytest

from gofer import (
    context,
)
from gofer.context import (
    after_func,
    background,
    todo,
    with_cancel,
    with_cancel_cause,
    with_deadline,
    with_deadline_cause,
    with_timeout,
    with_timeout_cause,
    with_value,
    without_cancel,
)

from shared.contexts import (
    Key,
    Wrapper,
    assert_going_on,
)

pytestmark = pytest.mark.usefixtures("nothing_left")


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fn",
    [
        with_cancel,
        with_cancel_cause,
        without_cancel,
        functools.partial(with_timeout, d=1),
        functools.partial(with_deadline, when=1),
        functools.partial(with_value, key=1, value=1),
        functools.partial(after_func, fn=int),
    ],
)
@pytest.mark.parametrize("parent", [None, 1, with_cancel])
def test_a_parent_is_a_context(fn, parent):
    with pytest.raises(TypeError, match=r"takes a context, not .*background\(\)"):
        fn(parent)


@pytest.mark.parametrize("key", [None, [], {}, ([],)])
def test_a_key_can_be_hashed(key):
    with pytest.raises(TypeError, match=r"^with_value\(\) .* key"):
        with_value(background(), key, 1)


@pytest.mark.parametrize("d", ["1", b"1", None, [], 1j])
def test_a_duration_is_a_number_or_a_timedelta(d):
    with pytest.raises(
        TypeError, match=r"with_timeout\(\) takes seconds as a number or a timedelta"
    ):
        with_timeout(background(), d)


@pytest.mark.parametrize("when", ["1", None, timedelta(1)])
def test_a_deadline_is_a_number(when):
    with pytest.raises(TypeError, match=r"with_deadline\(\) takes a time of time.monotonic\(\)"):
        with_deadline(background(), when)


def test_nan_is_no_time():
    with pytest.raises(ValueError, match="nan"):
        with_timeout(background(), math.nan)
    with pytest.raises(ValueError, match="nan"):
        with_deadline(background(), math.nan)


@pytest.mark.parametrize("why", ["text", ValueError, 0])
def test_a_cause_is_an_exception(why):
    ctx, cancel = with_cancel_cause(background())
    with pytest.raises(TypeError, match="an exception as the cause"):
        cancel(why)
    assert_going_on(ctx)
    with pytest.raises(TypeError, match="an exception as the cause"):
        with_timeout_cause(background(), 1, why)
    with pytest.raises(TypeError, match="an exception as the cause"):
        with_deadline_cause(background(), 1, why)


def test_after_func_takes_a_function():
    async def coroutine_function():
        pass

    with pytest.raises(TypeError, match=r"after_func\(\) of 1: it can not be called"):
        after_func(background(), 1)
    with pytest.raises(TypeError, match=r"after_func\(\) of the coroutine function .*gofer.aio"):
        after_func(background(), coroutine_function)


# --- in words -----------------------------------------------------------------------------------


def test_repr():
    ctx, _ = with_cancel(background())
    assert repr(ctx) == "background.with_cancel"
    valued = with_value(with_value(todo(), "name", "value"), Key(), None)
    assert repr(valued) == "todo.with_value('name', 'value').with_value(Key, None)"
    assert repr(with_cancel(Wrapper(ctx))[0]) == "Wrapper.with_cancel"
    assert repr(without_cancel(ctx)) == "background.with_cancel.without_cancel"
    timed, cancel = with_timeout(ctx, 5000)
    start, left = repr(timed).split(" [")
    assert start == "background.with_cancel.with_timeout(5000"
    assert 0 < float(left.removesuffix(" s left])")) <= 5000
    cancel()
    when = time.monotonic() - 5
    assert repr(with_deadline(ctx, when)[0]).startswith(
        f"background.with_cancel.with_deadline({when:.3f} [-"
    )


def test_everything_public_is_there():
    assert all(hasattr(context, name) for name in context.__all__)
