"""gofer.map: results and failures. Those that are abandoned: test_map_abandoned.py."""

import contextvars
import functools
import gc
import itertools
import threading
import weakref

import pytest

import gofer
from gofer import (
    Chan,
    Goroutine,
    WaitGroup,
    current,
    fork,
    gather,
    goexit,
    gosched,
    map,
    race,
    runtime,
    shield,
)
from gofer.errors import Canceled

from shared import Token
from shared.groups import REFUSED, Odd, fail, wait_for_ever

pytestmark = pytest.mark.usefixtures("nothing_left", "not_cancelled")


# --- results ------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 3, 32, 1000])
def test_map_keeps_the_order(limit, rng):
    steps = [rng.randrange(5) for _ in range(200)]

    def work(n):
        for _ in range(steps[n]):
            gosched()
        return n * n

    assert list(map(work, range(200), limit=limit)) == [n * n for n in range(200)]


def test_map_of_several_ends_with_the_shortest():
    assert list(map(pow, [2, 3, 4], itertools.repeat(2))) == [4, 9, 16]
    assert list(map(lambda *args: args, "ab", [1, 2, 3], "xyz", limit=2)) == [
        ("a", 1, "x"),
        ("b", 2, "y"),
    ]


def test_map_of_nothing():
    assert list(map(abs, [])) == []
    iterator = map(abs, iter(()))
    assert next(iterator, "end") == "end"
    assert next(iterator, "end") == "end"


def test_map_is_no_name_of_a_star_import():
    names = {}
    exec("from gofer import *", names)
    assert "race" in names
    assert "map" not in names
    assert gofer.map is map


def test_map_begins_when_the_first_result_is_asked_for():
    log = []

    def inputs():
        log.append("input")
        yield 1

    iterator = map(log.append, inputs())
    gosched()
    assert log == []
    assert next(iterator) is None
    assert log == ["input", 1]
    iterator.close()


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_no_more_inputs_are_taken_than_there_are_places(limit, rng):
    lock = threading.Lock()
    taken = running = most = 0

    def inputs():
        nonlocal taken
        for n in itertools.count():
            taken += 1
            yield n

    def work(n):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        try:
            for _ in range(rng.randrange(4)):
                gosched()
        finally:
            with lock:
                running -= 1
        return n

    iterator = map(work, inputs(), limit=limit)
    for expected in range(100):
        assert taken <= expected + limit
        assert next(iterator) == expected
        for _ in range(rng.randrange(3)):
            gosched()
    iterator.close()
    assert running == 0
    assert most <= limit


def test_as_many_as_the_limit_run_at_the_same_time():
    meeting = WaitGroup()
    meeting.add(5)

    def meet(n):
        meeting.done()
        meeting.wait()
        return n

    assert list(map(meet, range(5), limit=5)) == list(range(5))


def test_the_limit_is_32_if_not_given(until):
    def feeds(info):
        return info.parent == task.id and info.waiting_on.startswith("semaphore")

    started = Chan(100)
    task = fork(lambda: list(map(lambda n: [started.send(n), wait_for_ever()], range(100))))
    assert {started.recv() for _ in range(32)} == set(range(32))
    until(lambda: any(feeds(info) for info in runtime.goroutines()))
    assert len(started) == 0
    task.cancel()
    Goroutine.join(task)


def test_an_input_that_is_long_in_coming_holds_up_no_result():
    """The sender waits for the answer to one request before it sends the next."""
    requests, answers = Chan(), Chan()

    def ask():
        for n in range(10):
            requests.send(n)
            assert answers.recv() == -n
        requests.close()

    task = fork(ask)
    for answer in map(lambda n: -n, requests):
        answers.send(answer)
    task.join()


def test_map_in_map():
    inner = map(lambda n: [gosched(), n][1], range(100), limit=3)
    outer = map(lambda n: -n, inner, limit=4)
    assert list(outer) == [-n for n in range(100)]


def test_each_call_has_context_variables_of_its_own():
    var = contextvars.ContextVar("var", default="outer")

    def work(n):
        before = var.get()
        var.set(n)
        gosched()
        return before, var.get()

    var.set("consumer")
    assert list(map(work, range(4))) == [("consumer", n) for n in range(4)]
    assert var.get() == "consumer"


def test_goroutines_are_named_after_what_they_run():
    def name(_=None):
        return current().name.rpartition(".")[2]

    assert list(map(name, [1])) == ["name"]
    assert race(name) == "name"
    assert gather(name) == ["name"]
    assert list(map(functools.partial(name), [1])) != []


def test_memory_stays_the_same():
    """Of 20,000 inputs and results only a window is alive."""

    def counted(_):
        one = Token()
        refs.append(weakref.ref(one))
        return one

    refs, alive = [], []
    for n, _ in enumerate(map(counted, (counted(n) for n in range(10_000)), limit=10)):
        if n % 1000 == 999:
            alive.append(sum(ref() is not None for ref in list(refs)))
    assert len(refs) == 20_000
    assert max(alive) < 500


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit):
    with pytest.raises(ValueError, match="at least 1"):
        map(abs, [1], limit=limit)


@pytest.mark.parametrize("refused", REFUSED)
def test_what_map_can_not_run_is_refused_at_once(refused):
    with pytest.raises(TypeError, match="map"):
        map(refused, [1])


def test_what_map_can_not_iterate_is_refused_at_once():
    with pytest.raises(TypeError):
        map(abs, 3)
    with pytest.raises(TypeError):
        map(abs, [1], limit="3")
    with pytest.raises(TypeError):
        map(abs)


# --- failures -----------------------------------------------------------------------------------


def test_a_failure_is_raised_in_its_place(parked):
    error = KeyError("at 2")
    gate = Chan()

    def work(n):
        if n == 0:
            gate.recv_ok()
        if n == 2:
            gate.close()
            raise error
        return n

    results = []
    with pytest.raises(KeyError) as caught:
        for result in map(work, range(10)):
            results.append(result)
    assert caught.value is error
    assert results == [0, 1]


def test_a_failure_cancels_what_runs_and_waits_for_it():
    log = []

    def work(n):
        if n == 1:
            waits.recv()
            raise ValueError
        waits.send(None)
        try:
            wait_for_ever()
        finally:
            with shield():
                gosched()
            log.append(n)

    waits = Chan()
    with pytest.raises(ValueError):
        for _ in map(work, [1, 2]):
            pass
    assert log == [2]


def test_the_end_of_an_iterator_that_failed():
    iterator = map(int, ["1", "x", "3"])
    assert next(iterator) == 1
    with pytest.raises(ValueError):
        next(iterator)
    assert list(iterator) == []


def test_a_failing_input_is_raised_after_the_results_before_it():
    error = OSError("no more")

    def inputs():
        yield 1
        yield 2
        raise error

    results = []
    with pytest.raises(OSError) as caught:
        for result in map(lambda n: [gosched(), n][1], inputs()):
            results.append(result)
    assert caught.value is error
    assert results == [1, 2]


def test_a_failing_call_comes_before_a_failing_input(unraisable):
    def inputs():
        yield "x"
        raise OSError

    with pytest.raises(ValueError):
        list(map(int, inputs()))
    gc.collect()
    assert unraisable == []


def test_failures_that_nobody_asks_for_are_dropped(unraisable):
    with pytest.raises(ValueError):
        list(map(int, "abcdef"))
    iterator = map(int, ["1", "x", "x"])
    next(iterator)
    gosched()
    iterator.close()
    gc.collect()
    assert unraisable == []


def test_stop_iteration_is_a_failure_as_in_any_generator():
    with pytest.raises(RuntimeError, match="StopIteration"):
        list(map(fail, [StopIteration()]))


@pytest.mark.parametrize("ending", [Odd, SystemError])
def test_any_exception_is_raised(ending):
    with pytest.raises(ending):
        list(map(fail, [ending()]))


def test_goexit_in_map_is_a_result_of_none():
    assert list(map(lambda n: goexit() if n == 1 else n, range(3))) == [0, None, 2]


def test_one_that_was_cancelled_in_another_way():
    def work(n):
        if n == 1:
            current().cancel()
            wait_for_ever()
        return n

    iterator = map(work, range(3))
    assert next(iterator) == 0
    with pytest.raises(Canceled):
        next(iterator)


class Mine(Exception):
    def __init__(self, alive):
        alive.append(weakref.ref(self))


def raise_mine(alive):
    raise Mine(alive)


def failing_call(alive):
    list(map(raise_mine, [alive]))


def failing_input(alive):
    def inputs():
        yield 1
        raise_mine(alive)

    list(map(abs, inputs()))


def failing_race(alive):
    race(functools.partial(raise_mine, alive))


def failing_gather(alive):
    gather(functools.partial(raise_mine, alive))


@pytest.mark.usefixtures("one_worker")  # another thread frees its objects when it next runs
@pytest.mark.parametrize("run", [failing_call, failing_input, failing_race, failing_gather])
def test_failures_hold_no_circle(run):
    alive = []
    gc.disable()
    try:
        try:
            run(alive)
        except* Mine:
            pass
        (error,) = alive
        while error() is not None:
            gosched()
    finally:
        gc.enable()
