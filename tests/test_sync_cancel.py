"""gofer.sync, when the one who is cancelled is the one the others wait for."""

import pytest

from gofer import (
    Cancelled,
    Chan,
    Cond,
    Goroutine,
    GoroutineExit,
    Group,
    Mutex,
    Once,
    RWMutex,
    cancel_scope,
    fork,
    goexit,
    gosched,
    shield,
    sleep,
    timeout,
)
from gofer.errors import Canceled
from gofer.sync import SingleFlight, atomic, once_func, once_value

pytestmark = pytest.mark.usefixtures("nothing_left")


# --- what is done once --------------------------------------------------------------------------

DOING = {
    "Once": lambda fn: lambda once=Once(): once.do(fn),  # noqa: B008
    "once_func": once_func,
    "once_value": once_value,
}


@pytest.mark.parametrize("how", DOING)
def test_who_waits_does_what_the_cancelled_one_did_not(how, parked):
    calls, gate = [], Chan()

    def fn():
        calls.append("begun")
        gate.recv()
        calls.append("done")

    do = DOING[how](fn)
    first = fork(do)
    parked(first)
    others = [fork(do) for _ in range(3)]
    parked(*others)
    first.cancel()
    with pytest.raises(Canceled):
        first.join()
    gate.send(None)
    for task in others:
        task.join()
    do()
    assert calls == ["begun", "begun", "done"]


@pytest.mark.parametrize("how", DOING)
@pytest.mark.parametrize("ending", [Cancelled, GoroutineExit, KeyboardInterrupt])
def test_what_is_no_exception_does_not_count(how, ending):
    def fn():
        calls.append(1)
        if len(calls) == 1:
            raise ending

    calls = []
    do = DOING[how](fn)
    with pytest.raises(ending):
        do()
    do()
    do()
    assert len(calls) == 2


@pytest.mark.parametrize("how", DOING)
def test_one_that_leaves_in_the_middle_lets_the_others_in(how, parked):
    def fn():
        calls.append(1)
        if len(calls) == 1:
            gate.recv()
            goexit()

    calls, gate = [], Chan()
    do = DOING[how](fn)
    first = fork(do)
    parked(first)
    second = fork(do)
    parked(second)
    gate.send(None)
    second.join()
    first.join()
    assert len(calls) == 2


@pytest.mark.parametrize("how", DOING)
def test_a_timeout_of_the_first_is_not_that_of_the_others(how, until):
    def impatient():
        with timeout(0.001):
            do()

    gate = Chan()
    do = DOING[how](gate.recv_ok)
    first = fork(impatient)
    until(lambda: first.state in ("waiting", "dead"))  # its time may be over before we look
    second = fork(do)
    with pytest.raises(TimeoutError):
        first.join()
    gate.close()
    second.join()


# --- Cond ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Mutex, RWMutex])
def test_a_cancelled_wait_ends_with_the_lock_held(make, parked):
    """Also when it has to wait for the lock, which cancellation does not spare it."""
    lock, log = make(), []
    cond = Cond(lock)

    def waits():
        lock.lock()
        try:
            cond.wait()
        finally:
            log.append(lock.try_lock())
            lock.unlock()

    task = fork(waits)
    parked(task)
    lock.lock()
    task.cancel()
    gosched()
    assert not task.done
    parked(task)
    lock.unlock()
    with pytest.raises(Canceled):
        task.join()
    assert log == [False]
    assert lock.try_lock()


def test_waiting_in_a_cancelled_scope_gives_the_lock_back_and_takes_it_again(parked):
    lock, log = Mutex(), []
    cond = Cond(lock)
    with cancel_scope() as scope, lock:
        scope.cancel()
        try:
            cond.wait()
        finally:
            log.append(lock.try_lock())
    assert log == [False]
    assert lock.try_lock()
    cond.signal()  # to nobody


def test_a_broadcast_reaches_those_who_are_not_cancelled(parked):
    lock = Mutex()
    cond = Cond(lock)

    def waits():
        with lock:
            cond.wait()
        return "woken"

    tasks = [fork(waits) for _ in range(6)]
    parked(*tasks)
    with lock:
        for task in tasks[::2]:
            task.cancel()
        cond.broadcast()
    for task in tasks:
        Goroutine.join(task)
    assert [task.join() for task in tasks[1::2]] == ["woken"] * 3


# --- the rest -----------------------------------------------------------------------------------


def test_a_storm_of_flights_that_are_timed_out(rng):
    """Whoever is not timed out gets a value that somebody made."""
    flight, made = SingleFlight(), set()

    def make(key):
        for _ in range(rng.randrange(4)):
            gosched()
        if rng.random() < 0.3:
            sleep(0.0005)
        value = object()
        made.add(value)
        return value

    def ask(key):
        try:
            with timeout(rng.choice([None, 0, 0.0003])):
                value, _ = flight.do(key, lambda: make(key))
        except TimeoutError:
            return
        assert value in made

    for _ in range(10):
        with Group() as group:
            for n in range(60):
                group.go(ask, n % 3)


def test_atomics_do_not_see_cancellation(rng):
    total = atomic.Int()

    def add():
        for _ in range(50):
            total.add(1)
            with shield():
                gosched()

    with Group() as group:
        group.cancel()
        for _ in range(20):
            group.go(add)
    assert total.load() == 1000


def test_a_reader_that_is_cancelled_leaves_no_lock(rng):
    rw, inside = RWMutex(), atomic.Int()

    def read():
        with rw.reading():
            inside.add(1)
            try:
                gosched()
            finally:
                inside.add(-1)

    def write():
        with rw.writing():
            assert inside.load() == 0
            gosched()
            assert inside.load() == 0

    for _ in range(20):
        tasks = [fork(rng.choice([read, read, write])) for _ in range(30)]
        for task in rng.sample(tasks, 15):
            if rng.random() < 0.4:
                gosched()
            task.cancel()
        failures = [task.exception() for task in tasks]
        assert {type(failure) for failure in failures} <= {type(None), Canceled}
        assert rw.try_lock()
        rw.unlock()
