"""What CPython keeps for a thread, each goroutine has: exceptions, recursion depth, contexts."""

import contextlib
import contextvars
import decimal
import gc
import sys
import traceback

import pytest

from gofer import Chan, fork, gosched

from shared.parking import MANY, Park, scrub

pytestmark = pytest.mark.usefixtures("nothing_left")


# --- exceptions ---------------------------------------------------------------------------------


def test_the_exception_in_flight_is_its_own():
    def body(n):
        try:
            raise KeyError(n)
        except KeyError as error:
            for _ in range(4):
                park()
                assert sys.exc_info()[1] is error
            try:
                raise
            except KeyError as again:
                assert again is error
        assert sys.exc_info() == (None, None, None)
        return n

    park = Park(between=lambda: assert_no_exception())
    tasks = [fork(body, n) for n in range(MANY)]
    park.release(tasks)
    assert [task.join() for task in tasks] == list(range(MANY))


def assert_no_exception():
    assert sys.exc_info() == (None, None, None)


def test_an_exception_has_no_context_of_another():
    gate = Chan()

    def holder():
        try:
            raise KeyError
        except KeyError:
            gate.recv()

    def raiser():
        raise ValueError

    task = fork(holder)
    while task.state != "waiting":
        gosched()
    try:
        raise LookupError
    except LookupError:
        error = fork(raiser).exception()
        assert error.__context__ is None
        assert fork(sys.exc_info).join() == (None, None, None)
    gate.send(None)
    task.join()


def test_a_bare_raise_has_nothing_to_raise():
    def body():
        raise

    try:
        raise KeyError
    except KeyError:
        assert type(fork(body).exception()) is RuntimeError


def test_exception_in_a_generator_that_is_parked():
    def count():
        try:
            raise KeyError("inner")
        except KeyError:
            yield park()
            yield str(sys.exc_info()[1])

    def body():
        try:
            raise ValueError
        except ValueError as error:
            result = list(count())
            assert sys.exc_info()[1] is error
            return result

    park = Park()
    tasks = [fork(body) for _ in range(MANY)]
    park.release(tasks)
    assert [task.join() for task in tasks] == [[7, "'inner'"]] * MANY


def test_tracebacks_outlive_their_goroutine():
    def fail(n):
        local = [n]
        park()
        raise KeyError(local)

    park = Park()
    tasks = [fork(fail, n) for n in range(MANY)]
    park.release(tasks)
    errors = [task.exception() for task in tasks]
    del tasks
    gc.collect()
    scrub()
    for n, error in enumerate(errors):
        text = "".join(traceback.format_exception(error))
        assert "in fail" in text
        assert text.endswith(f"KeyError: [{n}]\n")
        last = list(traceback.walk_tb(error.__traceback__))[-1][0]
        assert last.f_locals["local"] == [n]


# --- recursion ----------------------------------------------------------------------------------


def test_each_has_the_whole_recursion_limit():
    deep = sys.getrecursionlimit() * 3 // 4

    def down(n):
        return 1 + down(n - 1) if n else park() - 7

    park = Park()
    tasks = [fork(down, deep) for _ in range(MANY)]
    park.release(tasks)
    assert [task.join() for task in tasks] == [deep] * MANY


def test_recursion_to_the_limit():
    def for_ever():
        return for_ever()

    def body():
        for _ in range(3):
            with pytest.raises(RecursionError):
                for_ever()
            park()
        return "ok"

    park = Park()
    tasks = [fork(body) for _ in range(MANY)]
    park.release(tasks)
    assert [task.join() for task in tasks] == ["ok"] * MANY


def test_recursion_through_c_to_the_limit():
    class Endless:
        def __repr__(self):
            return repr([self.__class__()])

    def body():
        for _ in range(2):
            with pytest.raises(RecursionError):
                repr(Endless())
            park()
        return "ok"

    park = Park()
    tasks = [fork(body) for _ in range(4)]
    park.release(tasks)
    assert [task.join() for task in tasks] == ["ok"] * 4


def test_deep_ones_do_not_take_from_main():
    deep = sys.getrecursionlimit() // 2

    def down(n):
        return down(n - 1) if n else park()

    def look():
        def here(n):
            return here(n - 1) if n else 0

        here(deep // 2)

    park = Park(between=look)
    tasks = [fork(down, deep) for _ in range(3)]
    park.release(tasks)


def test_starting_one_deep_down():
    """What is started deep in a recursion starts at the bottom."""

    def down(n):
        return down(n - 1) if n else fork(depth).join()

    def depth():
        return len(traceback.extract_stack())

    assert down(200) == 1


# --- contexts -----------------------------------------------------------------------------------


def test_context_variables_stay_with_their_goroutine():
    var = contextvars.ContextVar("var", default=None)

    def body(n):
        var.set(n)
        park()
        with contextlib.ExitStack() as stack:
            token = var.set(-n)
            stack.callback(var.reset, token)
            park()
            assert var.get() == -n
        park()
        return var.get()

    def look():
        assert var.get() is None

    park = Park(between=look)
    tasks = [fork(body, n) for n in range(MANY)]
    park.release(tasks)
    assert [task.join() for task in tasks] == list(range(MANY))


def test_a_context_that_is_entered_can_not_be_entered_again():
    context, gate = contextvars.copy_context(), Chan()
    task = fork(context.run, gate.recv)
    while task.state != "waiting":
        gosched()
    with pytest.raises(RuntimeError):
        context.run(int)
    gate.send(3)
    assert task.join() == 3
    assert context.run(int) == 0


def test_decimal_contexts_stay_with_their_goroutine():
    def body(n):
        with decimal.localcontext() as context:
            context.prec = n
            park()
            return str(decimal.Decimal(1) / 3)

    park = Park(between=lambda: decimal.Decimal(1) / 3)
    tasks = [fork(body, n) for n in range(1, MANY)]
    park.release(tasks)
    assert [task.join() for task in tasks] == ["0." + "3" * n for n in range(1, MANY)]
