"""gofer.map: that nothing is left running when nobody wants the results any more."""

import gc
import itertools

import pytest

from gofer import (
    Chan,
    Goroutine,
    Group,
    cancel_scope,
    fork,
    gosched,
    map,
    runtime,
    shield,
    sleep,
    timeout,
)
from gofer.errors import Canceled

from shared.groups import wait_for_ever

pytestmark = pytest.mark.usefixtures("nothing_left", "not_cancelled")


def waiting_but_for_the_first(ended):
    """A function that returns 0 at once; any other waits for ever, and says when that ends."""

    def work(n):
        if n == 0:
            return n
        try:
            return wait_for_ever()
        finally:
            ended.append(n)

    return work


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

    for _ in map(waiting_but_for_the_first(log), range(2)):
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

    inner = map(waiting_but_for_the_first(ended), range(10), limit=2)
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


def test_a_consumer_that_is_cancelled_waits_for_the_one_it_waited_for():
    begun, ended = Chan(), []

    def work(n):
        begun.send(n)
        try:
            wait_for_ever()
        finally:
            with shield():
                for _ in range(20):
                    gosched()
            ended.append(n)

    def cancel():
        begun.recv()
        scope.cancel()

    fork(cancel)
    with cancel_scope() as scope:
        next(map(work, [7], limit=1))
    assert ended == [7]


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
