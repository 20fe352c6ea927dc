"""gather, race and map: results, failures, and that nothing is left running."""

import contextvars
import functools
import gc
import itertools
import threading
import weakref

import pytest

import gofer
from gofer import (
    Cancelled,
    Chan,
    Goroutine,
    Group,
    WaitGroup,
    cancel_scope,
    current,
    fork,
    gather,
    goexit,
    gosched,
    map,
    race,
    runtime,
    shield,
    sleep,
    timeout,
)
from gofer.errors import Canceled

from shared import Token, in_thread
from shared.groups import fail, kinds, wait_for_ever

pytestmark = pytest.mark.usefixtures("nothing_left", "not_cancelled")


def fails(error):
    return functools.partial(fail, error)


async def coroutine_function():
    pass


REFUSED = [None, 3, coroutine_function, functools.partial(coroutine_function)]


class Odd(BaseException):
    pass


# --- gather -------------------------------------------------------------------------------------


def test_gather_returns_results_in_order():
    def one():
        second.recv()
        return 1

    def two():
        second.send(None)
        return 2

    second = Chan()
    assert gather(one, two, int, lambda: None) == [1, 2, 0, None]


def test_gather_of_nothing():
    assert gather() == []


def test_the_first_failure_of_gather_cancels_the_others(until):
    log = []

    def waits():
        log.append("waits")
        try:
            wait_for_ever()
        finally:
            log.append("ended")

    def fails_later():
        until(lambda: len(log) == 2)
        raise ValueError

    with pytest.raises(ExceptionGroup) as caught:
        gather(waits, waits, fails_later)
    assert kinds(caught.value) == [ValueError]
    assert log == ["waits"] * 2 + ["ended"] * 2


def test_goexit_in_gather_is_a_result_of_none():
    assert gather(goexit, int) == [None, 0]


def test_a_cancelled_of_its_own_leaves_the_others_alone():
    log = []
    with pytest.raises(Canceled):
        gather(fails(Cancelled()), lambda: [gosched(), log.append(1)])
    assert log == [1]


@pytest.mark.parametrize("start", [gather, race])
def test_cancelled_with_the_scope_around_it(start, parked):
    log = []

    def waits():
        try:
            wait_for_ever()
        finally:
            log.append("ended")

    def body():
        with cancel_scope() as scope:
            scopes.send(scope)
            start(waits, waits)
            log.append("not here")
        return "left"

    scopes = Chan()
    task = fork(body)
    scope = scopes.recv()
    parked(task)
    scope.cancel()
    assert task.join() == "left"
    assert len(log) <= 2  # one that has not begun ends where it would wait
    assert set(log) <= {"ended"}


@pytest.mark.parametrize("start", [gather, race])
@pytest.mark.parametrize("refused", REFUSED)
def test_what_can_not_run_is_refused_before_anything_begins(start, refused):
    log = []
    with pytest.raises(TypeError, match=start.__name__):
        start(lambda: log.append(1), refused)
    gosched()
    assert log == []


@pytest.mark.parametrize("start", [gather, race])
def test_an_ending_that_is_no_exception(start):
    with pytest.raises(BaseExceptionGroup) as caught:
        start(wait_for_ever, fails(Odd()), wait_for_ever)
    assert kinds(caught.value) == [Odd]


def test_in_a_thread():
    assert in_thread(gather, int, str) == [0, ""]
    assert in_thread(race, int, wait_for_ever) == 0
    assert in_thread(lambda: list(map(abs, [1, -2]))) == [1, 2]


# --- race ---------------------------------------------------------------------------------------


def test_the_first_to_return_wins():
    log = []

    def slow():
        ready.send(None)
        try:
            wait_for_ever()
        finally:
            with shield():
                gosched()
            log.append("ended")

    def quick():
        ready.recv()
        return "quick"

    ready = Chan()
    assert race(slow, quick) == "quick"
    assert log == ["ended"]


@pytest.mark.parametrize("result", [None, False, ()])
def test_any_result_wins(result):
    assert race(wait_for_ever, lambda: result) is result


def test_race_alone():
    assert race(lambda: 5) == 5
    with pytest.raises(ExceptionGroup):
        race(fails(KeyError()))


def test_a_failure_does_not_end_the_race(until):
    log = []

    def fails_first():
        log.append("fails")
        raise ValueError

    def wins():
        until(lambda: log)
        gosched()
        sleep(0)  # raises if cancelled
        return "wins"

    assert race(fails_first, wins) == "wins"


def test_if_all_fail_all_failures_are_raised_in_order():
    errors = [ValueError(), KeyError(), OSError()]

    def first():
        last.recv_ok()
        raise errors[0]

    def second():
        try:
            raise errors[1]
        finally:
            last.close()

    last = Chan()
    with pytest.raises(ExceptionGroup) as caught:
        race(first, second, fails(errors[2]))
    assert caught.value.exceptions == tuple(errors)


def test_race_of_nobody():
    with pytest.raises(ValueError, match="no functions"):
        race()


@pytest.mark.usefixtures("one_worker")
def test_who_has_not_begun_when_somebody_has_won_does_not_begin():
    log = []
    assert race(lambda: 1, lambda: log.append("begun")) == 1
    assert log == []


def test_failures_of_those_who_lost_are_dropped(unraisable, until):
    begun = []

    def loses():
        begun.append(1)
        try:
            wait_for_ever()
        finally:
            raise ValueError

    def wins():
        until(lambda: begun)
        return "won"

    assert race(loses, wins) == "won"
    gc.collect()
    assert unraisable == []


@pytest.mark.parametrize("leave", [goexit, fails(Cancelled())])
def test_who_leaves_neither_wins_nor_fails(leave):
    assert race(leave, lambda: [gosched()]) == [None]
    with pytest.raises(ExceptionGroup) as caught:
        race(leave, fails(KeyError()))
    assert kinds(caught.value) == [KeyError]
    with pytest.raises(Canceled):
        race(leave, leave)


def test_races_in_a_race():
    def inner():
        return race(wait_for_ever, wait_for_ever)

    assert race(inner, lambda: race(wait_for_ever, lambda: 7), inner) == 7


def test_a_timeout_around_a_race():
    with pytest.raises(TimeoutError):
        with timeout(0.001):
            race(wait_for_ever, wait_for_ever)


def test_a_timeout_is_one_of_the_racers():
    def limited():
        with timeout(0.001):
            wait_for_ever()

    with pytest.raises(ExceptionGroup) as caught:
        race(limited, limited)
    assert kinds(caught.value) == [TimeoutError] * 2


@pytest.mark.parametrize("start", [gather, race])
def test_storm_of_timeouts(start, rng):
    def waits(steps):
        for _ in range(steps):
            gosched()
        sleep(1)

    for _ in range(100):
        with pytest.raises(TimeoutError):
            with timeout(rng.random() * 0.001):
                start(*[functools.partial(waits, rng.randrange(5)) for _ in range(3)])


def test_storm_of_races(rng):
    for _ in range(100):
        steps = [rng.randrange(6) for _ in range(rng.randrange(1, 6))]
        end = rng.choice([int, fails(KeyError()), wait_for_ever])

        def runner(n, steps=steps, ends=end):
            for _ in range(steps[n]):
                gosched()
            return n if n % 2 else ends()

        racers = [functools.partial(runner, n) for n in range(len(steps))]
        try:
            with timeout(0.005):
                assert race(*racers) in range(len(steps))
        except* (KeyError, TimeoutError):
            pass


# --- map: results -------------------------------------------------------------------------------


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


# --- map: failures ------------------------------------------------------------------------------


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


# --- map: abandoned -----------------------------------------------------------------------------


class Watched:
    """Calls that wait for ever, but for the first; and what has become of them."""

    def __init__(self):
        self.begun, self.ended = [], []
        self.iterator = map(self.work, range(8), limit=4)
        self.first = next(self.iterator)

    def work(self, n):
        if n == 0:
            while len(self.begun) < 3:
                gosched()
            return n
        self.begun.append(n)
        try:
            return wait_for_ever()
        finally:
            with shield():
                gosched()
            self.ended.append(n)

    def assert_all_have_ended(self):
        assert self.first == 0
        assert sorted(self.ended) == sorted(self.begun)
        assert set(self.begun) >= {1, 2, 3}
        assert set(self.begun) <= {1, 2, 3, 4}


def test_close_cancels_what_runs_and_waits_for_it():
    watched = Watched()
    watched.iterator.close()
    watched.assert_all_have_ended()
    assert next(watched.iterator, "end") == "end"
    watched.iterator.close()


def test_dropping_it_cancels_what_runs_and_waits_for_it():
    watched = Watched()
    del watched.iterator
    watched.assert_all_have_ended()


def test_a_break_cancels_what_runs_and_waits_for_it():
    log = []

    def work(n):
        if n == 0:
            return n
        try:
            return wait_for_ever()
        finally:
            log.append(n)

    for _ in map(work, range(2)):
        gosched()
        break
    assert log in ([], [1])  # one that has not begun does not begin


def test_the_collector_cancels_what_runs(until):
    watched = Watched()
    circle = [watched.iterator]
    circle.append(circle)
    del watched.iterator, circle
    gc.collect()
    until(lambda: len(watched.ended) == len(watched.begun))
    watched.assert_all_have_ended()


def test_closed_before_it_begins():
    log = []
    iterator = map(log.append, [1])
    iterator.close()
    assert list(iterator) == []
    assert log == []


@pytest.mark.usefixtures("one_worker")
def test_calls_that_have_not_begun_do_not_begin():
    log = []
    iterator = map(log.append, range(10))
    next(iterator)
    assert log == [0]
    iterator.close()
    gosched()
    assert log == [0]


@pytest.mark.usefixtures("one_worker")
def test_no_input_is_taken_after_it_was_abandoned():
    taken = []
    iterator = map(abs, (taken.append(n) or n for n in itertools.count()), limit=4)
    for _ in range(3):
        next(iterator)
    before = len(taken)
    iterator.close()
    assert len(taken) == before


def test_abandoned_while_an_input_is_waited_for():
    inputs = Chan()
    task = fork(inputs.send, 1)
    iterator = map(abs, inputs)
    assert next(iterator) == 1
    task.join()
    iterator.close()
    with pytest.raises(TimeoutError):
        with timeout(0):
            inputs.send(2)


def test_an_abandoned_map_of_a_map():
    ended = []

    def work(n):
        if n == 0:
            return n
        try:
            return wait_for_ever()
        finally:
            ended.append(n)

    inner = map(work, range(10), limit=2)
    outer = map(abs, inner, limit=3)
    assert next(outer) == 0
    outer.close()
    del outer, inner
    assert set(ended) <= {1, 2}


def test_a_consumer_that_is_cancelled(parked):
    watched, log = None, []

    def consume():
        nonlocal watched
        watched = Watched()
        try:
            next(watched.iterator)
        finally:
            log.extend(watched.ended)

    task = fork(consume)
    while watched is None:
        gosched()
    parked(task)
    task.cancel()
    Goroutine.join(task)
    assert set(log) >= {1, 2, 3}
    watched.assert_all_have_ended()


def test_a_consumer_that_is_cancelled_between_two_results():
    with cancel_scope() as scope:
        watched = Watched()
        scope.cancel()
        next(watched.iterator)
        watched.first = "not here"
    assert list(watched.iterator) == []
    watched.assert_all_have_ended()


def test_begun_in_a_timeout_that_is_left_in_time():
    iterator = map(abs, range(100), limit=3)
    with timeout(0.001):
        assert next(iterator) == 0
    sleep(0.002)
    assert list(iterator) == list(range(1, 100))


def test_begun_in_a_scope_that_is_cancelled_later():
    def work(n):
        return wait_for_ever() if n else n

    iterator = map(work, itertools.count(), limit=2)
    with Group() as group:
        first = group.go(next, iterator)
        assert first.join() == 0
        group.cancel()
    with pytest.raises(Canceled):
        next(iterator)
    assert list(iterator) == []


def test_results_that_were_cancelled_together_with_the_consumer(until):
    """Cancelled is raised then, which the scope stops, and not Canceled."""
    before = runtime.num_goroutine()
    with cancel_scope() as scope:
        iterator = map(lambda n: wait_for_ever() if n else n, range(3))
        assert next(iterator) == 0
        scope.cancel()
        with shield():
            until(lambda: runtime.num_goroutine() == before)
        next(iterator)
        pytest.fail("it had no result")
    assert list(iterator) == []


def test_begun_in_a_scope_that_was_cancelled():
    with cancel_scope() as scope:
        scope.cancel()
        list(map(lambda _: wait_for_ever(), [1]))
        pytest.fail("it had no result")
    assert scope.cancelled


def test_it_does_not_put_its_consumer_into_a_scope():
    iterator = map(lambda n: wait_for_ever() if n else n, range(2))
    with cancel_scope() as scope:
        next(iterator)
        with pytest.raises(TimeoutError):
            with timeout(0.001):
                wait_for_ever()
    iterator.close()
    assert not scope.cancelled
    sleep(0)


def test_an_interrupted_consumer(program):
    """Ctrl-C while goroutine 1 waits for a result."""
    result = program("""
        import os, signal
        from gofer import Chan, map

        def work(n):
            if n == 1:
                os.kill(os.getpid(), signal.SIGINT)
            try:
                Chan().recv()
            finally:
                ended.append(n)

        ended = []
        try:
            list(map(work, range(2)))
        except KeyboardInterrupt:
            print(sorted(ended) in ([0], [0, 1], [1]), "interrupted")
    """)
    assert result == (0, "True interrupted\n", "")


def test_a_deadlock_in_a_map_is_told(program):
    result = program("""
        from gofer import Chan, Deadlock, map

        try:
            list(map(lambda n: Chan().recv(), range(3)))
        except Deadlock as error:
            print(sum("chan receive" in note for note in error.__notes__))
    """)
    assert result == (0, "3\n", "")


def test_killed_with_the_run_around_it(program):
    result = program("""
        from gofer import Chan, fork, gosched, map, run

        def work(n):
            try:
                Chan().recv()
            finally:
                ended.append(n)

        def consume():
            try:
                list(map(work, range(3)))
            finally:
                ended.append("consumer")

        def main():
            task = fork(consume)
            while task.state != "waiting":
                gosched()

        ended = []
        run(main)
        print("consumer" in ended, set(ended) <= {0, 1, 2, "consumer"})
    """)
    assert result == (0, "True True\n", "")


def test_storm_of_maps(rng):
    def work(n):
        for _ in range(rng.randrange(4)):
            gosched()
        if n % 97 == 96:
            raise KeyError(n)
        return n

    def inputs(n):
        for k in range(n):
            if rng.random() < 0.2:
                gosched()
            yield k
        if rng.random() < 0.3:
            raise OSError

    def consume():
        size, stop = rng.randrange(200), rng.randrange(200)
        seen, failure = [], None
        try:
            with timeout(rng.choice([None, 0.01])):
                for result in map(work, inputs(size), limit=rng.choice([1, 2, 7, 50])):
                    seen.append(result)
                    if result == stop:
                        break
        except (KeyError, OSError) as error:
            failure = error
        assert seen == list(range(len(seen)))
        if isinstance(failure, KeyError):
            assert failure.args == (len(seen),)
        elif failure is not None and not isinstance(failure, TimeoutError):
            assert len(seen) == size

    with Group() as group:
        for _ in range(60):
            group.go(consume)


def test_storm_of_abandoned_maps(rng):
    ended = []

    def work(n):
        try:
            return wait_for_ever() if n == 5 else n
        finally:
            ended.append(n)

    def consume(much):
        iterator = map(work, itertools.count(), limit=8)
        for _ in range(much):
            next(iterator)
        if rng.random() < 0.5:
            iterator.close()

    with Group() as group:
        for _ in range(100):
            group.go(consume, rng.randrange(6))
    assert max(ended, default=0) <= 5 + 8
