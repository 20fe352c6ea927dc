"""Locks under load: they exclude, permits and wake-ups are conserved, also under cancellation."""

import gc
import itertools

import pytest

from gofer import (
    Cancelled,
    Chan,
    Cond,
    Mutex,
    Once,
    Semaphore,
    WaitGroup,
    current,
    fork,
    go,
    gosched,
)
from gofer.errors import Canceled
from gofer.sync import Pool, SingleFlight, atomic

pytestmark = pytest.mark.usefixtures("nothing_left")


def cancel_some(tasks, rng, share):
    for task in rng.sample(tasks, round(share * len(tasks))):
        if rng.random() < 0.3:
            gosched()
        task.cancel()


# --- Semaphore ----------------------------------------------------------------------------------


@pytest.mark.parametrize("permits", [1, 2, 7])
def test_no_more_inside_than_permits(permits, much, rng, spawn_thread):
    sem, free, ended = Semaphore(permits), atomic.Int(permits), WaitGroup()

    def body(amounts):
        for n in amounts:
            sem.acquire(n)
            assert free.add(-n) >= 0
            assert 0 <= int(repr(sem).split()[1]) <= permits - n
            gosched()
            free.add(n)
            sem.release(n)
        ended.done()

    for k in range(20):
        ended.add()
        amounts = [rng.randint(0, permits) for _ in range(much(200))]
        (spawn_thread if k % 6 == 0 else go)(body, amounts)
    ended.wait()
    assert free.load() == permits
    assert sem.try_acquire(permits)


@pytest.mark.parametrize("permits", [1, 3, 10])
def test_permits_are_conserved_under_cancellation(permits, much, rng):
    for _ in range(much(40)):
        sem, free = Semaphore(permits), atomic.Int(permits)

        def body(amounts, sem=sem, free=free):
            try:
                for n in amounts:
                    sem.acquire(n)
                    try:
                        assert free.add(-n) >= 0
                        gosched()
                    finally:
                        free.add(n)
                        sem.release(n)
            except Cancelled:
                return "cancelled"
            return "done"

        tasks = [fork(body, [rng.randint(1, permits) for _ in range(20)]) for _ in range(40)]
        cancelled = rng.sample(tasks, 20)
        for task in cancelled:
            if rng.random() < 0.5:
                gosched()
            task.cancel()
        for task in tasks:
            assert task.join() == "done" or task in cancelled
        assert free.load() == permits
        assert sem.try_acquire(permits)


def test_a_release_and_a_cancellation_race(much, parked):
    for _ in range(much(1500)):
        sem = Semaphore(2)
        sem.acquire(2)
        big = fork(sem.acquire, 2)
        parked(big)
        small = fork(sem.acquire)
        parked(small)
        releaser = fork(sem.release, 2)
        big.cancel()
        releaser.join()
        if big.exception() is None:
            assert small.state == "waiting"
            sem.release()
            small.join()
            assert sem.try_acquire() is False
        else:
            small.join()
            assert sem.try_acquire() is True
            assert sem.try_acquire() is False


def test_who_gives_up_lets_those_behind_pass(much, parked, rng):
    for _ in range(much(200)):
        sem = Semaphore(5)
        sem.acquire(3)
        big = fork(sem.acquire, 5)
        parked(big)
        small = [fork(sem.acquire) for _ in range(2)]
        parked(*small)
        big.cancel()
        for task in small:
            task.join()
        assert not sem.try_acquire()
        big.exception()


# --- WaitGroup, join ----------------------------------------------------------------------------


def test_wave_after_wave(much):
    group, sums = WaitGroup(), Chan(1000)
    for wave in range(much(100)):
        for k in range(50):
            group.go(sums.send, k)
        waiters = [fork(group.wait) for _ in range(10)]
        group.wait()
        for task in waiters:
            task.join()
        assert len(sums) == 50, wave
        assert sum(sums.recv() for _ in range(50)) == 1225


def test_a_group_counts_from_everywhere(much, spawn_thread):
    group, done, n = WaitGroup(), WaitGroup(), much(1000)
    done.add(10)

    def body():
        for _ in range(n):
            group.add(2)
            group.done()
            gosched()
            group.done()
        done.done()

    group.add()
    for k in range(10):
        (spawn_thread if k % 3 == 0 else go)(body)
    waiters = [fork(group.wait) for _ in range(5)]
    done.wait()
    assert not any(task.done for task in waiters)
    group.done()
    for task in waiters:
        task.join()


def test_the_last_done_and_wait_meet(much):
    for n in range(much(3000)):
        group = WaitGroup()
        group.add(2)
        one = fork(group.done)
        waiter = fork(group.wait)
        if n % 2:
            gosched()
        group.done()
        waiter.join()
        one.join()


def test_everybody_joins_everybody(much, spawn_thread):
    n = 40
    for _ in range(much(5)):
        tasks, start, joined = [], Chan(), WaitGroup()

        def body(k, tasks=tasks, start=start):
            start.recv_ok()
            assert [task.join() for task in tasks[:k]] == list(range(k))
            return k

        tasks += [fork(body, k) for k in range(n)]

        def join_all(tasks=tasks, joined=joined):
            assert [task.join() for task in tasks] == list(range(n))
            joined.done()

        joined.add(4)
        for k in range(4):
            (spawn_thread if k % 2 else go)(join_all)
        start.close()
        joined.wait()


def test_the_end_and_a_join_meet(much):
    for n in range(much(3000)):
        task = fork(int, n)
        joiners = [fork(task.join) for _ in range(2)]
        assert task.join() == n
        assert [joiner.join() for joiner in joiners] == [n, n]


# --- Cond ---------------------------------------------------------------------------------------


class Queue:
    """A bounded queue as textbooks make it."""

    def __init__(self, cap):
        self.mutex = Mutex()
        self.filled, self.emptied = Cond(self.mutex), Cond(self.mutex)
        self.items, self.cap = [], cap

    def put(self, item):
        with self.mutex:
            while len(self.items) >= self.cap:
                self.emptied.wait()
            self.items.append(item)
            self.filled.signal()

    def get(self):
        with self.mutex:
            while not self.items:
                self.filled.wait()
            self.emptied.signal()
            return self.items.pop(0)


@pytest.mark.parametrize("cap", [1, 3])
def test_a_queue_of_conditions(cap, much, spawn_thread):
    queue, each, ended = Queue(cap), much(200), WaitGroup()
    logs = [[] for _ in range(6)]

    def put(k):
        for n in range(each):
            queue.put((k, n))
        ended.done()

    def get(log):
        for _ in range(each):
            log.append(queue.get())
        ended.done()

    ended.add(12)
    for k in range(6):
        (spawn_thread if k % 3 == 0 else go)(put, k)
        (spawn_thread if k % 3 == 1 else go)(get, logs[k])
    ended.wait()
    assert sorted(itertools.chain(*logs)) == [(k, n) for k in range(6) for n in range(each)]


def test_signals_are_not_lost_with_who_gives_up(much, rng):
    """As many tokens as uncancelled takers: each of those gets one."""
    for _ in range(much(40)):
        mutex, n = Mutex(), 40
        cond, tokens = Cond(mutex), [0]

        def take(mutex=mutex, cond=cond, tokens=tokens):
            with mutex:
                while not tokens[0]:
                    cond.wait()
                tokens[0] -= 1

        def give(mutex=mutex, cond=cond, tokens=tokens):
            with mutex:
                tokens[0] += 1
                cond.signal()

        takers = [fork(take) for _ in range(n)]
        for _ in range(rng.randrange(3)):
            gosched()
        givers = [fork(give) for _ in range(n)]
        cancel_some(takers, rng, 0.5)
        failures = [task.exception() for task in takers]
        for task in givers:
            task.join()
        assert {type(e) for e in failures} <= {type(None), Canceled}
        assert tokens[0] == n - failures.count(None)
        assert mutex.try_lock()


def test_broadcast_wakes_all(much):
    mutex = Mutex()
    cond, generation, n = Cond(mutex), [0], 30
    arrived = Chan(n)

    def body():
        for wanted in range(1, rounds + 1):
            with mutex:
                arrived.send(None)
                while generation[0] < wanted:
                    cond.wait()

    rounds = much(50)
    tasks = [fork(body) for _ in range(n)]
    for _ in range(rounds):
        for _ in range(n):
            arrived.recv()
        with mutex:
            generation[0] += 1
            cond.broadcast()
    for task in tasks:
        task.join()


# --- the rest -----------------------------------------------------------------------------------


def test_once_means_once(much, spawn_thread):
    for k in range(much(200)):
        once, calls, ended = Once(), [], WaitGroup()
        ended.add(10)

        def call(once=once, calls=calls, ended=ended):
            once.do(lambda: (gosched(), calls.append(current())))
            assert len(calls) == 1
            ended.done()

        for n in range(10):
            (spawn_thread if n == 5 and k % 20 == 0 else go)(call)
        ended.wait()
        assert len(calls) == 1


def test_one_flight_at_a_time_for_a_key(much, rng):
    flights, flying = SingleFlight(), [atomic.Int() for _ in range(3)]

    def work(key):
        assert flying[key].add(1) == 1
        for _ in range(3):
            gosched()
        flying[key].add(-1)
        return key * 10

    def body(keys):
        for key in keys:
            value, shared = flights.do(key, lambda key=key: work(key))
            assert value == key * 10
            assert type(shared) is bool

    tasks = [fork(body, [rng.randrange(3) for _ in range(much(100))]) for _ in range(20)]
    for task in tasks:
        task.join()


def test_flights_under_cancellation(much, rng):
    for _ in range(much(30)):
        flights, gate = SingleFlight(), Chan()

        def body(flights=flights, gate=gate):
            try:
                return flights.do("key", lambda: gate.recv_ok()[1])[0]
            except Cancelled:
                return "cancelled"

        tasks = [fork(body) for _ in range(20)]
        gosched()
        cancel_some(tasks[:19], rng, 0.7)
        gate.close()
        outcomes = [task.join() for task in tasks]
        assert outcomes[19] is False
        assert set(outcomes) <= {False, "cancelled"}


def test_no_two_have_one_object_of_a_pool(much):
    made = atomic.Int()

    class Thing:
        def __init__(self):
            self.users = 0
            made.add(1)

    pool = Pool(Thing)

    def body():
        for _ in range(much(300)):
            thing = pool.get()
            thing.users += 1
            assert thing.users == 1
            gosched()
            thing.users -= 1
            pool.put(thing)

    tasks = [fork(body) for _ in range(20)]
    for task in tasks:
        task.join()
    assert 1 <= made.load() <= 20


def test_nothing_is_lost_in_an_atomic(much, spawn_thread):
    number, ref, ended, n = atomic.Int(), atomic.Ref(()), WaitGroup(), much(500)

    def body(k):
        for i in range(n):
            number.add(k + 1)
            while True:
                old = number.load()
                if number.compare_and_swap(old, old - k):
                    break
            if i % 10 == 0:
                while True:
                    seen = ref.load()
                    if ref.compare_and_swap(seen, (k, seen)):
                        break
        ended.done()

    ended.add(12)
    for k in range(12):
        (spawn_thread if k % 4 == 0 else go)(body, k)
    ended.wait()
    assert number.load() == 12 * n
    length, at = 0, ref.load()
    while at:
        length, at = length + 1, at[1]
    assert length == 12 * len(range(0, n, 10))


def test_the_collector_and_dying_locks(much, rng):
    """Locks that go while others wait on others of the same kind."""

    def body(k):
        for n in range(much(30)):
            mutex, sem, group = Mutex(), Semaphore(2), WaitGroup()
            holders = [mutex, sem, group]
            holders.append(holders)
            mutex.lock()
            sem.acquire(2)
            group.add()
            tasks = [fork(mutex.lock), fork(sem.acquire), fork(group.wait)]
            if n % 2:
                gosched()
            if (n + k) % 10 == 0:
                gc.collect()
            for task in tasks:
                task.cancel()
            for task in tasks:
                assert isinstance(task.exception(), (Canceled, type(None)))

    tasks = [fork(body, k) for k in range(10)]
    for task in tasks:
        task.join()


def test_a_storm_of_wake_ups_between_workers(much, rng):
    """Permits of single semaphores travel in random directions; a lost wake-up stops one."""
    n, hops, ended = 30, much(300), WaitGroup()
    places = [Semaphore(1) for _ in range(n)]
    for place in places:
        place.acquire()
    left = atomic.Int(n * hops)

    def node(k):
        while True:
            places[k].acquire()
            if left.load() <= 0:
                break
            left.add(-1)
            places[(k + 1) % n].release()
        ended.done()

    ended.add(n)
    for k in range(n):
        go(node, k)
    places[0].release()
    while left.load() > 0:
        gosched()

    def let_out(place):
        while True:
            try:
                return place.release()
            except RuntimeError:  # it holds the permit: it is about to be taken
                gosched()

    for place in places:
        go(let_out, place)
    ended.wait()
