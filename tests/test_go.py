"""What go, fork and run can start, and what they refuse."""

import contextvars
import functools
import weakref

import pytest

from gofer import WaitGroup, fork, go, run
from gofer.runtime import num_goroutine

from shared import Token

pytestmark = pytest.mark.usefixtures("nothing_left")


# --- what can be started ------------------------------------------------------------------------


class Thing:
    def __init__(self, /, *args, **kwargs):
        self.got = (args, kwargs)

    def __call__(self, /, *args, **kwargs):
        return args, kwargs

    def method(self, /, *args, **kwargs):
        return args, kwargs

    @classmethod
    def of_class(cls, /, *args, **kwargs):
        return args, kwargs

    @staticmethod
    def static(*args, **kwargs):
        return args, kwargs


def function(*args, **kwargs):
    return args, kwargs


CALLABLES = {
    "function": function,
    "lambda": lambda *args, **kwargs: (args, kwargs),
    "method": Thing().method,
    "classmethod": Thing.of_class,
    "staticmethod": Thing.static,
    "staticmethod object": Thing.__dict__["static"],
    "instance": Thing(),
    "partial": functools.partial(function),
    "partial method": functools.partialmethod(Thing.method).__get__(Thing()),
    "wrapped": functools.wraps(function)(lambda *args, **kwargs: function(*args, **kwargs)),
    "cached": functools.lru_cache(function),
    "dispatching": functools.singledispatch(function),
    "bound to a context": functools.partial(contextvars.copy_context().run, function),
}

CALLS = [
    ((1,), {}),
    ((1, 2, 3), {}),
    ((1, 2, 3, 4), {}),
    (tuple(range(40)), {}),
    ((1,), {"fn": 2, "args": 3, "self": 4}),
    ((1, 2), {"a": 3}),
    ((1, 2, 3), {f"k{n}": n for n in range(40)}),
]


@pytest.mark.parametrize("name", CALLABLES)
@pytest.mark.parametrize("call", CALLS, ids=range(len(CALLS)))
def test_any_callable_gets_its_arguments(name, call):
    args, kwargs = call
    assert fork(CALLABLES[name], *args, **kwargs).join() == (args, kwargs)


def test_builtins_and_classes_are_callables():
    items = []
    go(items.append, 1).join()
    assert items == [1]
    assert fork(len, [1, 2]).join() == 2
    assert fork(int, "ff", base=16).join() == 255
    assert fork(dict, a=1).join() == {"a": 1}
    assert fork(Thing, 1, b=2).join().got == ((1,), {"b": 2})
    assert fork(str.upper, "a").join() == "A"
    assert list(fork("a b".split).join()) == ["a", "b"]


def test_a_generator_function_makes_its_generator():
    def count():
        yield from range(3)

    assert list(fork(count).join()) == [0, 1, 2]


async def coroutine_function():
    pass


class WithCoroutineMethod:
    async def method(self):
        pass


COROUTINE_FUNCTIONS = {
    "function": coroutine_function,
    "method": WithCoroutineMethod().method,
    "partial": functools.partial(coroutine_function),
    "partial of partial of method": functools.partial(
        functools.partial(WithCoroutineMethod().method)
    ),
}

STARTERS = {"go": go, "fork": fork, "WaitGroup.go": WaitGroup().go, "run": run}


@pytest.mark.parametrize("how", STARTERS)
@pytest.mark.parametrize("what", COROUTINE_FUNCTIONS)
def test_a_coroutine_function_is_refused(how, what):
    before = num_goroutine()
    with pytest.raises(TypeError, match=r"gofer\.aio"):
        STARTERS[how](COROUTINE_FUNCTIONS[what])
    assert num_goroutine() == before


@pytest.mark.parametrize("how", STARTERS)
@pytest.mark.parametrize("thing", [None, 3, "function", [function], object()])
def test_what_can_not_be_called_is_refused(how, thing):
    before = num_goroutine()
    with pytest.raises(TypeError):
        STARTERS[how](thing)
    assert num_goroutine() == before


@pytest.mark.parametrize("how", STARTERS)
def test_a_function_must_be_given(how):
    with pytest.raises(TypeError):
        STARTERS[how]()
    with pytest.raises(TypeError):
        STARTERS[how](fn=function)


def test_arguments_that_do_not_fit_fail_in_the_goroutine():
    task = fork(lambda: None, 1, 2)
    with pytest.raises(TypeError):
        task.join()


def test_a_refused_call_gives_up_its_arguments():
    token = Token()
    with pytest.raises(TypeError):
        fork(coroutine_function, token)
    alive = weakref.ref(token)
    del token
    assert alive() is None
