"""multiprocessing and concurrent.futures, waited for by goroutines."""

import multiprocessing
import operator
import os
import threading
import time
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    as_completed,
    wait,
)
from multiprocessing.connection import Client, Listener
from multiprocessing.connection import wait as wait_for_connections

import pytest

from gofer import Cancelled, Group, cancel_scope, fork, gosched, timeout

from shared import in_thread
from shared.canary import beats_under

pytestmark = pytest.mark.usefixtures("nothing_left", "cooperative", "not_cancelled")

MANY = 30


# --- locks --------------------------------------------------------------------------------------

LOCKS = {
    "Lock": multiprocessing.Lock,
    "RLock": multiprocessing.RLock,
    "Semaphore": lambda: multiprocessing.Semaphore(1),
    "BoundedSemaphore": lambda: multiprocessing.BoundedSemaphore(1),
}
ACQUIRE = {
    "acquire": lambda lock: lock.acquire(),
    "with a limit": lambda lock: lock.acquire(timeout=1e6),
    "enter": lambda lock: lock.__enter__(),
}


@pytest.fixture(params=LOCKS)
def lock(request):
    return LOCKS[request.param]()


def holder(lock, parked):
    """A goroutine that has it; returns a function that has it released there."""
    stop = threading.Event()

    def hold():
        with lock:
            stop.wait()

    task = fork(hold)
    parked(task)
    return lambda: (stop.set(), task.join())


@pytest.mark.parametrize("how", ACQUIRE)
def test_waiting_parks(one_worker, parked, lock, how):
    assert beats_under(lambda: ACQUIRE[how](lock), holder(lock, parked))
    assert not fork(lock.acquire, False).join()
    lock.release()
    assert fork(lambda: lock.acquire(False) and lock.release() is None).join()


def test_a_real_thread_has_it(one_worker, lock):
    taken, stop = threading.Event(), threading.Event()

    def hold():
        with lock:
            taken.set()
            stop.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    assert beats_under(lock.acquire, stop.set)
    lock.release()
    thread.join()


def test_time_outs(parked, lock):
    let_go = holder(lock, parked)
    assert lock.acquire(False) is False
    assert lock.acquire(True, 0.01) is False
    assert lock.acquire(True, 0) is False
    assert lock.acquire(True, -1) is False
    assert lock.acquire(timeout=0.01) is False
    let_go()
    assert lock.acquire(True, 0) is True
    lock.release()
    with pytest.raises(TypeError):
        lock.acquire(timeout="1")


def test_cancelled(one_worker, parked, lock):
    let_go = holder(lock, parked)
    with cancel_scope() as scope:
        with pytest.raises(Cancelled):
            beats_under(lock.acquire, scope.cancel)
        raise Cancelled
    with pytest.raises(TimeoutError), timeout(0.01):
        lock.acquire()
    let_go()
    assert lock.acquire(False)
    lock.release()


def test_only_one_at_a_time(lock):
    inside = most = 0

    def use():
        nonlocal inside, most
        for _ in range(20):
            with lock:
                inside += 1
                most = max(most, inside)
                gosched()
                inside -= 1

    with Group() as g:
        for _ in range(5):
            g.go(use)
    assert (inside, most) == (0, 1)


def test_a_recursive_one_belongs_to_a_goroutine(parked):
    lock = multiprocessing.RLock()
    mine = lock._semlock._is_mine
    with lock, lock:
        assert mine()
        assert not fork(mine).join()
        assert not fork(lock.acquire, False).join()
        with pytest.raises(AssertionError, match="not owned"):
            fork(lock.release).join()
        with pytest.raises(AssertionError, match="not owned"):
            in_thread(lock.release)
    assert not mine()
    with pytest.raises(AssertionError, match="not owned"):
        lock.release()
    let_go = holder(lock, parked)
    assert not mine()
    assert not lock.acquire(False)  # the thread's number is that of goroutine 1
    with pytest.raises(AssertionError, match="not owned"):
        lock.release()
    let_go()
    assert in_thread(lambda: lock.acquire(False) and lock.release() is None)


def test_too_many_releases():
    for make in (multiprocessing.Lock, lambda: multiprocessing.BoundedSemaphore(1)):
        with pytest.raises(ValueError, match="too many times"):
            make().release()


def test_conditions_and_events(one_worker):
    condition, event = multiprocessing.Condition(), multiprocessing.Event()

    def waits():
        with condition:
            return condition.wait(1e6)

    tasks = [fork(waits) for _ in range(3)]
    while not all(task.done for task in tasks):
        with condition:
            condition.notify_all()
        gosched()
    assert [task.join() for task in tasks] == [True] * 3
    beats_under(event.wait, event.set)
    assert event.wait(0.01)


# --- connections and queues ---------------------------------------------------------------------


@pytest.mark.parametrize("duplex", [True, False])
def test_connections(one_worker, duplex):
    here, there = multiprocessing.Pipe(duplex)
    with here, there:
        assert beats_under(here.recv, lambda: there.send([1, 2])) == [1, 2]
        assert beats_under(lambda: here.poll(None), lambda: there.send(3))
        assert wait_for_connections([here]) == [here]
        assert here.recv() == 3
        assert not here.poll(0.01)
        big = bytes(3_000_000)
        sending = fork(there.send_bytes, big)
        assert here.recv_bytes() == big
        sending.join()
        there.close()
        with pytest.raises(EOFError):
            here.recv()


def test_listeners(one_worker, tmp_path):
    for address in (("localhost", 0), str(tmp_path / "socket")):
        with Listener(address, authkey=b"secret") as listener:
            accepting = fork(listener.accept)
            with Client(listener.address, authkey=b"secret") as client, accepting.join() as server:
                assert beats_under(client.recv, lambda: server.send("hello")) == "hello"


def test_queues_between_goroutines(one_worker):
    queue = multiprocessing.Queue(5)
    with Group() as g:
        takers = [g.go(lambda: [queue.get() for _ in range(20)]) for _ in range(3)]
        for n in range(3):
            g.go(lambda n=n: [queue.put(20 * n + k) for k in range(20)])
    assert sorted(n for task in takers for n in task.join()) == list(range(60))
    with pytest.raises(TimeoutError), timeout(0.01):
        queue.get()
    queue.close()
    queue.join_thread()


PROGRAM = """
    import multiprocessing, os, sys, time
    from gofer import Group, fork, gosched, patch, sleep

    beats = 0

    def beat():
        global beats
        while True:
            sleep(0.001)
            beats += 1

"""
METHODS = ["fork", "spawn", "forkserver"]


@pytest.mark.parametrize("method", METHODS)
def test_between_processes(program, method):
    result = program(
        f"""{PROGRAM}
    def child(lock, total, todo, done, connection):
        while (n := todo.get()) is not None:
            with lock:
                before = total.value
                time.sleep(0.0001)
                total.value = before + n
            done.put(n)
        connection.send(connection.recv() + 1)

    def main():
        mp = multiprocessing.get_context("{method}")
        lock, total = mp.RLock(), mp.Value("i", 0, lock=False)
        todo, done = mp.Queue(), mp.Queue(3)
        pipes = [mp.Pipe() for _ in range(2)]  # two that read from one end would mix their parts
        args = lock, total, todo, done
        children = [mp.Process(target=child, args=(*args, there)) for _, there in pipes]
        for one in children:
            one.start()
        fork(beat)

        def add(n):
            with lock:
                before = total.value
                gosched()
                total.value = before + n

        with Group() as g:
            takers = [g.go(done.get) for _ in range(20)]
            for n in range(20):
                g.go(todo.put, n)
                g.go(add, 100)
        assert sorted(task.join() for task in takers) == list(range(20))
        assert total.value == sum(range(20)) + 2000
        for here, _ in pipes:
            todo.put(None)
            here.send(41)
        assert [here.recv() for here, _ in pipes] == [42, 42]
        for one in children:
            one.join()
            assert one.exitcode == 0
        print("done", beats > 0)

    if __name__ == "__main__":
        patch()
        main()
        """,
        flags=["-W", "ignore"],
    )
    assert result == (0, "done True\n", "")


def test_a_lock_that_another_process_holds(program):
    result = program(
        f"""{PROGRAM}
    def child(lock, connection):
        with lock:
            connection.send("mine")
            connection.recv()

    def main():
        mp = multiprocessing.get_context("fork")
        lock, (here, there) = mp.Lock(), mp.Pipe()
        one = mp.Process(target=child, args=(lock, there))
        one.start()
        here.recv()
        canary = fork(beat)
        waiters = [fork(lock.acquire) for _ in range(2)]
        while beats < 20:
            sleep(0.001)
        assert not any(waiter.done for waiter in waiters)
        here.send("yours")
        while not any(waiter.done for waiter in waiters):
            sleep(0.001)
        assert not all(waiter.done for waiter in waiters)
        lock.release()
        for waiter in waiters:
            waiter.join()
        one.join()
        print("done")

    patch()
    main()
        """,
        flags=["-W", "ignore"],
    )
    assert result == (0, "done\n", "")


def test_pools_and_managers(program):
    result = program(
        f"""{PROGRAM}
    def square(n):
        time.sleep(0.001)
        return n * n

    def main():
        mp = multiprocessing.get_context("fork")
        fork(beat)
        with mp.Pool(2) as pool, mp.Manager() as manager:
            shared = manager.dict()

            def work(n):
                shared[n] = pool.apply(square, (n,))
                return list(pool.imap(square, range(3)))

            with Group() as g:
                tasks = [g.go(work, n) for n in range(10)]
            assert [task.join() for task in tasks] == [[0, 1, 4]] * 10
            assert dict(shared) == {{n: n * n for n in range(10)}}
        print("done", beats > 0)

    patch()
    main()
        """,
        flags=["-W", "ignore"],
    )
    assert result == (0, "done True\n", "")


def test_a_manager_that_the_collector_finds_ends_its_process(program):
    result = program(
        f"""{PROGRAM}
    import gc

    def main():
        cycle = [multiprocessing.get_context("fork").Manager()]
        cycle.append(cycle)
        del cycle
        gc.collect()
        print(multiprocessing.active_children())

    patch()
    main()
        """,
        flags=["-W", "ignore"],
    )
    assert result == (0, "[]\n", "")


# --- concurrent.futures -------------------------------------------------------------------------


def test_futures(one_worker):
    future = Future()
    assert beats_under(future.result, lambda: future.set_result(7)) == 7
    failing = Future()
    error = beats_under(failing.exception, lambda: failing.set_exception(OSError("no")))
    assert str(error) == "no"
    late = Future()
    with pytest.raises(TimeoutError):
        late.result(timeout=0.01)
    with pytest.raises(TimeoutError, match="timeout"), timeout(0.01):
        late.result()
    both = beats_under(
        lambda: wait([late, future, Future()], return_when=FIRST_COMPLETED), lambda: None
    )
    assert both.done == {future}


def test_a_pool_of_threads(one_worker):
    here = threading.get_ident()
    with ThreadPoolExecutor(3) as pool:

        def ask(n):
            future = pool.submit(lambda: (time.sleep(0.0005), threading.get_ident(), n))
            return future.result()[1:]

        with Group() as g:
            tasks = [g.go(ask, n) for n in range(MANY)]
        answers = [task.join() for task in tasks]
        assert [n for _, n in answers] == list(range(MANY))
        assert here not in {ident for ident, _ in answers}
        assert len({ident for ident, _ in answers}) <= 3
        assert list(pool.map(operator.neg, range(5))) == [0, -1, -2, -3, -4]
        futures = [pool.submit(operator.neg, n) for n in range(5)]
        assert sorted(f.result() for f in as_completed(futures)) == [-4, -3, -2, -1, 0]


def test_a_pool_whose_calls_wait_for_goroutines():
    event = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(event.wait)
        setting = fork(event.set)
        assert future.result() is True
        setting.join()


def test_a_pool_of_processes(one_worker):
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        with Group() as g:
            tasks = [g.go(lambda n=n: pool.submit(pow, n, 2).result()) for n in range(MANY)]
        assert [task.join() for task in tasks] == [n * n for n in range(MANY)]
        idle = pool.submit(time.sleep, 0.05)
        beats_under(idle.result, lambda: None)
        with pytest.raises(ZeroDivisionError):
            pool.submit(divmod, 1, 0).result()
        pid = pool.submit(os.getpid).result()
        assert pid != os.getpid()
        broken = pool.submit(os._exit, 3)
        with pytest.raises(Exception, match="terminated abruptly"):
            broken.result()
