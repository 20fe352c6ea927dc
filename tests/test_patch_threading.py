"""Locks, conditions and queues of the standard library, between goroutines and threads."""

import _thread
import contextlib
import logging
import queue
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from gofer import Cancelled, Chan, Group, cancel_scope, fork, gosched, timeout

from shared import in_thread
from shared.canary import beats_under
from shared.lock_points import NO_LIMIT, POINTS, made

pytestmark = pytest.mark.usefixtures("nothing_left", "cooperative", "not_cancelled")

MANY = 30


@pytest.fixture(params=POINTS)
def point(request):
    yield from made(request.param)


@pytest.fixture(params=[name for name in POINTS if name not in NO_LIMIT])
def limited(request):
    yield from made(request.param)


# --- waiting and waking -------------------------------------------------------------------------


def test_the_others_go_on(point, one_worker):
    beats_under(point.wait, point.wake)


def test_a_thread_wakes_a_goroutine(point, parked):
    waiter = fork(point.wait)
    parked(waiter)
    in_thread(point.wake)
    waiter.join()


def test_a_goroutine_wakes_a_thread(point, until):
    waiter = threading.Thread(target=point.wait)
    waiter.start()
    for _ in range(20):
        gosched()
    woken = fork(point.wake)
    while waiter.is_alive():
        gosched()
    woken.join()


# --- time-outs and cancellation -----------------------------------------------------------------


def late(point, seconds):
    if isinstance(point.late, type):
        with pytest.raises(point.late):
            point.limited(seconds)
    else:
        assert point.limited(seconds) is point.late


@pytest.mark.parametrize("seconds", [0, 0.02])
def test_its_own_timeout(limited, seconds, until):
    late(limited, seconds)
    tasks = [fork(late, limited, seconds) for _ in range(3)]
    until(lambda: all(task.done for task in tasks))
    for task in tasks:
        task.join()
    in_thread(late, limited, seconds)


def test_its_own_timeout_that_is_in_time(limited, parked):
    waiter = fork(limited.limited, 1000)
    parked(waiter)
    fork(limited.wake).join()
    assert waiter.join() in (True, 1, None)


def test_timeout_of_gofer(point):
    with pytest.raises(TimeoutError):
        with timeout(0.02):
            point.wait()


def test_cancelled(point, parked, until):
    seen = []

    def wait():
        with cancel_scope() as scope:
            scopes.append(scope)
            try:
                point.wait()
            except Cancelled:
                seen.append("cancelled")
                raise

    for _ in range(2):
        scopes = []
        waiter = fork(wait)
        parked(waiter)
        scopes[0].cancel()
        waiter.join()
    assert seen == ["cancelled"] * 2

    waiter = fork(point.wait)  # what is left behind works as before
    parked(waiter)
    fork(point.wake).join()
    waiter.join()


# --- many ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock, threading.Condition])
def test_exclusion(make):
    it, inside, total = make(), 0, 0

    def work():
        nonlocal inside, total
        for n in range(MANY):
            with it:
                inside += 1
                assert inside == 1
                if n % 3 == 0:
                    gosched()
                if n % 7 == 0:
                    time.sleep(0)
                total += 1
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    with Group() as group:
        for _ in range(MANY):
            group.go(work)
    for thread in threads:
        thread.join()
    assert total == MANY * (MANY + 3)


def test_who_waits_long_is_served(one_worker):
    """One that frees a lock and takes it again at once does not keep it from the others."""
    it, rounds, served = threading.Lock(), 0, []

    def hold():
        nonlocal rounds
        while not served:
            with it:
                rounds += 1
                time.sleep(0.002)

    holder = fork(hold)
    gosched()
    with it:
        served.append(rounds)
    holder.join()


def times_held(lock):
    if hasattr(lock, "_recursion_count"):  # not in the first releases of 3.11
        return lock._recursion_count()
    return int(re.search(r" count=(\d+) ", repr(lock))[1])


def test_an_rlock_is_the_goroutines():
    it = threading.RLock()
    inside = []

    def reenter(n):
        with it:
            with it:
                inside.append(n)
                gosched()
                assert it._is_owned()
                assert times_held(it) == 2
                inside.append(n)
                assert not fork(it.acquire, False).join()
                assert not fork(it._is_owned).join()
                assert not in_thread(it.acquire, False)

    with Group() as group:
        for n in range(MANY):
            group.go(reenter, n)
    assert sorted(inside[::2]) == list(range(MANY))
    assert inside[::2] == inside[1::2]
    with pytest.raises(RuntimeError, match="un-acquired"):
        it.release()


def test_an_rlock_of_another_is_not_released():
    it = threading.RLock()
    it.acquire()
    for call in (fork(it.release).join, lambda: in_thread(it.release)):
        with pytest.raises(RuntimeError, match="un-acquired"):
            call()
    it.release()
    assert fork(it.acquire).join()
    with pytest.raises(RuntimeError, match="un-acquired"):
        it.release()


def test_an_rlock_that_a_thread_holds(parked):
    it = threading.RLock()
    held, end = Chan(), Chan()

    def hold():
        with it, it:
            held.send(None)
            end.recv()

    thread = threading.Thread(target=hold)
    thread.start()
    held.recv()
    waiters = [fork(lambda: it.acquire() and it.release()) for _ in range(3)]
    parked(*waiters)
    assert not it.acquire(False)
    end.send(None)
    for waiter in waiters:
        waiter.join()
    thread.join()


def test_conditions_restore_how_often(parked):
    it = threading.Condition()

    def wait():
        with it, it, it:
            it.wait()
            assert times_held(it._lock) == 3

    waiters = [fork(wait) for _ in range(3)]
    parked(*waiters)
    with it:
        it.notify_all()
    for waiter in waiters:
        waiter.join()


# --- who one is ---------------------------------------------------------------------------------


def test_numbers():
    main = threading.get_ident()
    assert main == threading.main_thread().ident
    assert in_thread(threading.get_ident) != main
    with Group() as group:
        tasks = [group.go(lambda: (gosched(), threading.get_ident())[1]) for _ in range(MANY)]
        idents = {main, *(task.join() for task in tasks)}
        assert len(idents) == MANY + 1
    assert threading.get_ident() == main


def test_current_thread():
    def look():
        thread = threading.current_thread()
        gosched()
        assert threading.current_thread() is thread
        assert thread.ident == threading.get_ident()
        assert thread in threading.enumerate()
        return thread.name, threading.Thread().daemon

    assert threading.current_thread() is threading.main_thread()
    tasks = [fork(look) for _ in range(MANY)]
    assert {task.join() for task in tasks} == {(f"goroutine {task.id}", False) for task in tasks}
    assert not [t for t in threading.enumerate() if t.name.startswith("goroutine ")]
    assert in_thread(lambda: threading.current_thread().name).startswith("Thread-")


def test_current_thread_in_a_thread_that_threading_has_not_started():
    seen = queue.SimpleQueue()
    _thread.start_new_thread(lambda: seen.put(threading.current_thread()), ())
    assert repr(seen.get()).startswith("<_DummyThread(Dummy-")


def test_locals():
    it = threading.local()
    it.value = "main"
    dropped = []

    class Value:
        def __init__(self, n):
            self.n = n

        def __del__(self):
            dropped.append(self.n)

    def use(n):
        assert not hasattr(it, "value")
        it.value = Value(n)
        gosched()
        assert it.value.n == n
        return in_thread(hasattr, it, "value")

    tasks = [fork(use, n) for n in range(MANY)]
    assert [task.join() for task in tasks] == [False] * MANY
    assert sorted(dropped) == list(range(MANY))
    assert it.value == "main"


def test_locals_with_a_class_of_their_own():
    class Own(threading.local):
        def __init__(self, start):
            self.value = start

    it = Own([])

    def use():
        it.value = [*it.value, 1]
        gosched()
        return it.value

    tasks = [fork(use) for _ in range(MANY)]
    assert [task.join() for task in tasks] == [[1]] * MANY
    assert it.value == []


def test_reprs_that_meet_themselves(parked):
    """What is on its way in one goroutine is no recursion in another."""
    gate = Chan()

    class Slow:
        def __repr__(self):
            gate.recv()
            return "slow"

    it = [Slow()]
    tasks = [fork(repr, it) for _ in range(2)]
    parked(*tasks)
    for _ in tasks:
        gate.send(None)
    assert [task.join() for task in tasks] == ["[slow]"] * 2


def test_signals_to_a_goroutine_reach_its_thread():
    seen = []
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
    fork(lambda: signal.pthread_kill(threading.get_ident(), 0)).join()
    with pytest.raises(ProcessLookupError):
        signal.pthread_kill(fork(threading.get_ident).join(), 0)
    fork(lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)).join()
    while not seen:
        gosched()
    signal.signal(signal.SIGUSR1, before)


def test_logging(caplog):
    def log(n):
        logging.getLogger("goroutines").warning("number %d", n)
        return threading.get_ident()

    tasks = [fork(log, n) for n in range(MANY)]
    idents = {task.join() for task in tasks}
    assert {record.thread for record in caplog.records} == idents
    assert {r.threadName for r in caplog.records} == {f"goroutine {task.id}" for task in tasks}


# --- queues -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [queue.Queue, queue.LifoQueue, queue.SimpleQueue, lambda: queue.Queue(2)]
)
@pytest.mark.parametrize("producers", ["goroutines", "threads", "both"])
@pytest.mark.parametrize("consumers", ["goroutines", "threads", "both"])
def test_nothing_is_lost_in_a_queue(make, producers, consumers):
    it, seen = make(), []

    def produce(first):
        for n in range(first, first + MANY):
            it.put(n)

    def consume():
        while (n := it.get()) is not None:
            seen.append(n)

    def start(kind, fn, *args):
        if kind == "goroutines":
            return fork(fn, *args)
        thread = threading.Thread(target=fn, args=args)
        thread.start()
        return thread

    def kinds(which):
        return ("goroutines", "threads") if which == "both" else (which, which)

    takers = [start(kind, consume) for kind in kinds(consumers) for _ in range(2)]
    makers = [
        start(kind, produce, MANY * (2 * n + which))
        for which, kind in enumerate(kinds(producers))
        for n in range(2)
    ]
    for maker in makers:
        maker.join()
    for _ in takers:
        it.put(None) if make is not queue.LifoQueue else None
    if make is queue.LifoQueue:
        while len(seen) < 4 * MANY:
            gosched()
        for _ in takers:
            it.put(None)
    for taker in takers:
        taker.join()
    assert sorted(seen) == list(range(4 * MANY))


@pytest.mark.parametrize("make", [queue.Queue, queue.SimpleQueue, lambda: queue.Queue(1)])
def test_random_cancellation_loses_nothing(make, rng):
    it, seen, sent = make(), [], []
    over = False

    def consume():
        while not over:
            with cancel_scope() as scope:
                scopes.append(scope)
                seen.append(it.get())

    def produce(n):
        for k in range(MANY):
            it.put((n, k))
            sent.append((n, k))
            if rng.random() < 0.3:
                gosched()

    def annoy():
        while not over:
            if scopes:
                scopes.pop(rng.randrange(len(scopes))).cancel()
            gosched()

    scopes = []
    tasks = [fork(consume) for _ in range(5)]
    annoyer = fork(annoy)
    threads = [threading.Thread(target=produce, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    with Group() as group:
        for n in range(2, 6):
            group.go(produce, n)
    for thread in threads:
        thread.join()
    while len(seen) < 6 * MANY:
        gosched()
    over = True
    for task in tasks:
        while not task.done:
            with contextlib.suppress(queue.Full):  # it may have gone, and take nothing more
                it.put_nowait(None)
            gosched()
    annoyer.join()
    for task in tasks:
        task.join()
    assert sorted(n for n in seen if n is not None) == sorted(sent)


def test_who_one_is_can_be_told_in_a_cancelled_scope(parked):
    def who():
        with cancel_scope() as scope:
            scope.cancel()
            return threading.current_thread().name

    with threading._active_limbo_lock:
        task = fork(who)
        parked(task)
    assert task.join() == f"goroutine {task.id}"


def test_random_cancellation_of_conditions(rng):
    """A notification that comes too late for one that is cancelled goes on to the next."""
    it, ready, taken = threading.Condition(threading.Lock()), 0, 0
    over = False
    scopes = []

    def take():
        nonlocal ready, taken
        while not over:
            with cancel_scope() as scope:
                scopes.append(scope)
                with it:
                    while not ready and not over:
                        it.wait()
                    if ready:
                        ready -= 1
                        taken += 1

    def annoy():
        while not over:
            if scopes:
                scopes.pop(rng.randrange(len(scopes))).cancel()
            gosched()

    takers = [fork(take) for _ in range(6)]
    annoyer = fork(annoy)
    for _ in range(200):
        with it:
            ready += 1
            it.notify()
        if rng.random() < 0.5:
            gosched()
    while taken < 200:
        gosched()
    over = True
    annoyer.join()
    with it:
        it.notify_all()
    for taker in takers:
        taker.join()
    assert not it._lock.locked()


def test_executors_from_goroutines():
    with ThreadPoolExecutor(4) as executor:

        def use(n):
            futures = [executor.submit(pow, n, k) for k in range(5)]
            return [f.result() for f in futures]

        tasks = [fork(use, n) for n in range(MANY)]
        assert [task.join() for task in tasks] == [[n**k for k in range(5)] for n in range(MANY)]
