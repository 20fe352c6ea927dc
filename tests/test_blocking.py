"""`blocking`: calls on a pool of threads.

Most tests have a pool of their own. What is said of threads is looked at inside the calls, or when
the pool has come to a state that `until` waits for.
"""

import contextvars
import functools
import gc
import sys
import threading
import time
import traceback
import weakref

import pytest

from gofer import (
    Cancelled,
    Chan,
    Group,
    WaitGroup,
    blocking,
    cancel_scope,
    current,
    fork,
    go,
    gosched,
    shield,
    sleep,
    timeout,
)
from gofer.errors import Canceled
from gofer.testing import bubble
from gofer.time import now

from shared import Token, in_thread
from shared.workers import elsewhere

pytestmark = pytest.mark.usefixtures("nothing_left")

module = sys.modules["gofer.blocking"]  # `blocking` is the function


@pytest.fixture(autouse=True)
def pool(monkeypatch, until):
    """A pool of the test's own; all its threads have ended afterwards."""
    fresh = module._Pool()
    monkeypatch.setattr(module, "_pool", fresh)
    yield fresh
    fresh.close()
    until(lambda: not fresh._workers)


@pytest.fixture
def idle(pool, until):
    """`idle(n)` waits until so many threads have nothing to do, and no other exists."""

    def wait(n):
        until(lambda: len(pool._idle) == len(pool._workers) == n)

    return wait


class Gate:
    """Calls of `gate(x)` return x when it is opened; `entered` counts them."""

    def __init__(self):
        self.entered = []
        self._open = threading.Event()

    def __call__(self, value=None):
        self.entered.append(value)
        self._open.wait()
        return value

    def open(self):
        self._open.set()


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.open()


def ident():
    return threading.get_ident()


# --- what it returns and raises -----------------------------------------------------------------


def test_it_returns_what_the_function_returns():
    assert blocking(divmod, 7, 2) == (3, 1)
    assert blocking(int, "ff", base=16) == 255
    assert blocking(lambda: None) is None


def test_another_thread_makes_the_call():
    assert blocking(ident) != ident()


def test_the_others_go_on_meanwhile(gate, until, parked):
    task = fork(blocking, gate, "through")
    until(lambda: gate.entered)
    parked(task)
    gate.open()
    assert task.join() == "through"


def test_it_works_on_every_worker(gate):
    task = elsewhere(blocking, gate, 1)
    gate.open()
    assert task.join() == 1


def test_an_exception_has_the_traceback_of_both_sides():
    def fail():
        raise ValueError("here")

    def call():
        blocking(fail)

    with pytest.raises(ValueError, match="here") as caught:
        call()
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert [name for name in names if name in ("call", "fail")] == ["call", "fail"]


@pytest.mark.parametrize(
    "kind", [ValueError, StopIteration, SystemExit, KeyboardInterrupt, GeneratorExit, Cancelled]
)
def test_any_exception_arrives(kind):
    def fail():
        raise error

    error = kind("word")
    with pytest.raises(kind) as caught:
        blocking(fail)
    assert caught.value is error


def test_an_exception_is_not_kept():
    def fail(token):
        raise ValueError(token)

    token = Token()
    ref = weakref.ref(token)
    with pytest.raises(ValueError):
        blocking(fail, token)
    del token
    gc.collect()
    assert ref() is None


def test_nothing_of_a_call_is_kept(idle):
    token = Token()
    ref = weakref.ref(token)
    assert blocking(lambda x: [x], token)[0] is token
    idle(1)
    del token
    gc.collect()
    assert ref() is None


def test_a_waiting_call_that_is_cancelled_is_not_kept(pool, gate, until):
    blocking.limit(1)
    first = fork(blocking, gate)
    until(lambda: gate.entered)
    token = Token()
    ref = weakref.ref(token)
    second = fork(blocking, print, token)
    until(lambda: pool._waiting)
    del token
    second.cancel()
    with pytest.raises(Canceled):
        second.join()
    del second
    gc.collect()
    assert ref() is None
    gate.open()
    first.join()


def test_misuse():
    with pytest.raises(TypeError, match=r"blocking\(\) of 7: it can not be called"):
        blocking(7)
    with pytest.raises(TypeError):
        blocking()

    async def coroutine():
        pass

    with pytest.raises(TypeError, match=r"coroutine function .*coroutine"):
        blocking(coroutine)
    with pytest.raises(TypeError, match="coroutine function"):
        blocking(functools.partial(coroutine))
    with pytest.raises(TypeError, match="coroutine function"):
        blocking.wrap(coroutine)
    with pytest.raises(TypeError):
        blocking(divmod, 1)


# --- what is carried over -----------------------------------------------------------------------

variable = contextvars.ContextVar("variable", default="nothing")


def test_context_variables_are_those_of_the_caller():
    def call(value):
        variable.set(value)
        gosched()
        seen = blocking(lambda: (variable.get(), variable.set("there")))[0]
        return seen, variable.get()

    tasks = [fork(call, n) for n in range(20)]
    assert [task.join() for task in tasks] == [(n, n) for n in range(20)]
    assert blocking(variable.get) == "nothing"


def test_the_thread_has_the_name_of_the_goroutine():
    def name():
        return threading.current_thread().name

    assert blocking(name) == current().name

    def call():
        current().name = "a name of its own"
        return blocking(name)

    assert fork(call).join() == "a name of its own"


# --- the pool -----------------------------------------------------------------------------------


def test_one_thread_makes_one_call_after_the_other(pool):
    threads = {blocking(ident) for _ in range(100)}
    assert len(threads) == len(pool._workers) == 1


def test_the_pool_grows_on_demand(pool, gate, idle, until):
    tasks = [fork(blocking, gate, n) for n in range(30)]
    until(lambda: len(gate.entered) == 30)
    gate.open()
    assert [task.join() for task in tasks] == list(range(30))
    idle(30)


def test_idle_threads_leave(pool, gate, until):
    pool.rest = 0.001
    tasks = [fork(blocking, gate, n) for n in range(10)]
    until(lambda: len(gate.entered) == 10)
    threads = [worker.thread for worker in pool._workers]
    gate.open()
    for task in tasks:
        task.join()
    until(lambda: not any(thread.is_alive() for thread in threads))
    assert not pool._workers
    assert blocking(int) == 0


def test_idle_threads_rest_for_ten_seconds():
    assert module._Pool().rest == 10


def test_who_was_idle_last_is_the_next_at_work(gate, idle, until):
    """So that the others can leave."""
    tasks = [fork(blocking, gate) for _ in range(5)]
    until(lambda: len(gate.entered) == 5)
    gate.open()
    for task in tasks:
        task.join()
    idle(5)
    assert len({blocking(ident) for _ in range(50)}) == 1


def test_no_more_at_a_time_than_the_limit(pool, gate, until):
    assert blocking.limit(3) == 512
    assert blocking.limit() == 3
    tasks = [fork(blocking, gate, n) for n in range(10)]
    until(lambda: len(gate.entered) == 3 and len(pool._waiting) == 7)
    assert len(pool._workers) == 3
    gate.open()
    assert [task.join() for task in tasks] == list(range(10))


def test_first_come_first_served(pool, gate, until, parked):
    blocking.limit(1)
    first = fork(blocking, gate)
    until(lambda: gate.entered)
    order, tasks = [], []
    for n in range(20):
        tasks.append(fork(blocking, order.append, n))
        parked(tasks[-1])
    gate.open()
    for task in [first, *tasks]:
        task.join()
    assert order == list(range(20))


def test_a_higher_limit_starts_those_that_wait(pool, gate, until):
    blocking.limit(1)
    tasks = [fork(blocking, gate, n) for n in range(5)]
    until(lambda: len(pool._waiting) == 4)
    blocking.limit(4)
    until(lambda: len(gate.entered) == 4)
    assert len(pool._waiting) == 1
    gate.open()
    assert [task.join() for task in tasks] == list(range(5))


def test_a_lower_limit_holds_for_idle_threads_too(pool, gate, idle, until):
    tasks = [fork(blocking, gate) for _ in range(5)]
    until(lambda: len(gate.entered) == 5)
    gate.open()
    for task in tasks:
        task.join()
    idle(5)
    blocking.limit(2)
    again = Gate()
    tasks = [fork(blocking, again) for _ in range(5)]
    until(lambda: len(again.entered) == 2 and len(pool._waiting) == 3)
    again.open()
    for task in tasks:
        task.join()


def test_threads_beyond_a_lower_limit_leave(pool, gate, idle, until):
    tasks = [fork(blocking, gate) for _ in range(5)]
    until(lambda: len(gate.entered) == 5)
    blocking.limit(2)
    gate.open()
    for task in tasks:
        task.join()
    idle(2)


@pytest.mark.parametrize("n", [0, -1])
def test_a_limit_below_one(n):
    with pytest.raises(ValueError, match="no call could ever be made"):
        blocking.limit(n)
    assert blocking.limit() == 512


def test_thousands_of_calls_at_once(pool):
    blocking.limit(20)
    with Group() as g:
        tasks = [g.go(blocking, pow, n, 2) for n in range(3000)]
    assert [task.join() for task in tasks] == [n * n for n in range(3000)]
    assert len(pool._workers) <= 20


def test_several_workers(pool):
    tasks = [s(lambda: [blocking(int, k) for k in range(50)]) for s in (fork, elsewhere) * 4]
    assert [task.join() for task in tasks] == [list(range(50))] * 8


# --- calls in calls -----------------------------------------------------------------------------


def test_a_call_in_a_call_is_made_right_there():
    def inner(n):
        return [ident()] if n == 0 else [ident(), *blocking(inner, n - 1)]

    blocking.limit(1)
    assert len(set(blocking(inner, 5))) == 1


def test_in_a_plain_thread_it_is_made_right_there():
    assert in_thread(lambda: blocking(ident) == ident())
    with pytest.raises(ZeroDivisionError):
        in_thread(blocking, divmod, 1, 0)


def test_calls_in_calls_through_goroutines():
    """Who waits for goroutines gives them his place."""

    def down(n):
        return 0 if n == 0 else 1 + fork(blocking, down, n - 1).join()

    blocking.limit(1)
    assert blocking(down, 20) == 20


def test_a_call_waits_for_those_that_have_no_place_yet(pool):
    blocking.limit(1)
    ch = Chan()

    def receive():
        while not pool._waiting:
            time.sleep(0)  # gosched would step aside
        return ch.recv()

    receiver = fork(blocking, receive)
    sender = fork(lambda: (gosched(), blocking(lambda: ch.send("value")))[1])
    assert receiver.join() == "value"
    sender.join()


def test_who_has_stepped_aside_is_counted_again_for_the_next_call(pool, gate, idle, until):
    blocking.limit(1)
    ch = Chan()
    task = fork(blocking, ch.recv)
    until(lambda: pool._workers and not pool._busy and not pool._idle and not pool._coming)
    ch.send(None)
    task.join()
    idle(1)
    tasks = [fork(blocking, gate) for _ in range(2)]
    until(lambda: len(gate.entered) == 1 and len(pool._waiting) == 1)
    gate.open()
    for task in tasks:
        task.join()


def test_a_call_uses_everything_of_the_library():
    def call():
        ch, wg = Chan(), WaitGroup()
        for n in range(10):
            wg.go(ch.send, n)
        got = sorted(ch.recv() for _ in range(10))
        wg.wait()
        with timeout(1000):
            sleep(0.001)
        with Group() as g:
            tasks = [g.go(blocking, pow, n, 2) for n in got]
        return [task.join() for task in tasks]

    assert blocking(call) == [n * n for n in range(10)]


# --- cancellation -------------------------------------------------------------------------------


def test_a_call_that_has_begun_goes_on_and_its_result_is_thrown_away(gate, idle, until):
    log = []
    with cancel_scope() as scope:
        go(lambda: (until(lambda: gate.entered), scope.cancel()))
        blocking(lambda: (gate(), log.append("done")))
        pytest.fail("not cancelled")
    assert log == []
    gate.open()
    idle(1)
    assert log == ["done"]


def test_its_exception_is_thrown_away_too(gate, idle, until, unraisable):
    with cancel_scope() as scope:
        go(lambda: (until(lambda: gate.entered), scope.cancel()))
        blocking(lambda: (gate(), 1 / 0))
    gate.open()
    idle(1)
    assert unraisable == []


def test_one_that_has_not_begun_is_never_made(pool, gate, until):
    blocking.limit(1)
    log = []
    first = fork(blocking, gate)
    until(lambda: gate.entered)
    second = fork(blocking, log.append, 2)
    third = fork(blocking, log.append, 3)
    until(lambda: len(pool._waiting) == 2)
    second.cancel()
    with pytest.raises(Canceled):
        second.join()
    gate.open()
    third.join()
    first.join()
    assert log == [3]


def test_in_a_cancelled_scope_no_call_is_made():
    log = []
    with cancel_scope() as scope:
        scope.cancel()
        for _ in range(3):
            with pytest.raises(Cancelled):
                blocking(log.append, 1)
        with shield():
            blocking(log.append, 2)
    assert log == [2]


def test_a_time_out(gate):
    with pytest.raises(TimeoutError):
        with timeout(0.001):
            blocking(gate)


def test_the_pool_is_whole_after_many_cancellations(pool, rng, until):
    blocking.limit(4)
    ran = []
    for _ in range(20):
        with Group() as g:
            for n in range(20):
                g.go(blocking, ran.append, n)
            for _ in range(rng.randrange(5)):
                gosched()
            g.cancel()
    until(lambda: len(pool._idle) == len(pool._workers))
    assert not pool._waiting
    assert len(pool._workers) <= 4
    assert blocking(pow, 2, 3) == 8


# --- no more threads ----------------------------------------------------------------------------


@pytest.fixture
def no_threads(monkeypatch):
    """From now on the system has no more threads."""
    refused = []

    def start(self):
        refused.append(1)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    return refused


def test_the_first_thread_can_not_be_had(pool, no_threads, monkeypatch):
    log = []
    with pytest.raises(RuntimeError, match="can't start new thread"):
        blocking(log.append, 1)
    assert (log, len(pool._workers), len(pool._waiting)) == ([], 0, 0)
    monkeypatch.undo()
    monkeypatch.setattr(module, "_pool", pool)
    assert blocking(int) == 0


def test_those_that_are_there_do_it(pool, gate, no_threads, until, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(module, "_pool", pool)
    first = fork(blocking, gate, 0)
    until(lambda: gate.entered)
    refused = []

    def start(self):
        refused.append(self)
        raise MemoryError

    monkeypatch.setattr(threading.Thread, "start", start)
    tasks = [fork(blocking, int, n) for n in range(5)]
    until(lambda: len(pool._waiting) == 5)
    until(lambda: refused and pool._coming is None)  # who came meanwhile relied on that one
    gate.open()
    assert [first.join(), *(task.join() for task in tasks)] == [0, 0, 1, 2, 3, 4]
    assert len(pool._workers) == 1


def test_an_interrupt_while_a_thread_is_started(pool, monkeypatch):
    class Interrupt(BaseException):
        pass

    def start(self):
        raise Interrupt

    log = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(Interrupt):
            blocking(log.append, 1)
    assert (len(pool._workers), len(pool._waiting)) == (0, 0)
    blocking(log.append, 2)
    assert log == [2]


def test_an_interrupt_when_the_thread_has_started(pool, monkeypatch, until):
    class Interrupt(BaseException):
        pass

    real = threading.Thread.start

    def start(self):
        real(self)
        until(lambda: gate.entered)
        raise Interrupt

    gate = Gate()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(Interrupt):
            blocking(gate)
    gate.open()
    until(lambda: len(pool._idle) == len(pool._workers) == 1)
    assert blocking(int) == 0


# --- wrap and iter ------------------------------------------------------------------------------


def test_a_function_that_always_runs_so():
    @blocking.wrap
    def work(n: int, *, times: int = 1) -> tuple:
        """Says where."""
        return n * times, ident()

    assert work(3, times=2)[0] == 6
    assert work(3)[1] != ident()
    assert (work.__name__, work.__doc__) == ("work", "Says where.")
    with pytest.raises(TypeError):
        work()


def test_a_method_that_always_runs_so():
    class Store:
        @blocking.wrap
        def where(self):
            return self, ident()

    store = Store()
    assert store.where()[0] is store
    assert store.where()[1] != ident()


def test_iterating_over_what_blocks():
    places = []

    def items():
        for n in range(5):
            places.append(ident())
            yield n

    assert list(blocking.iter(items())) == list(range(5))
    assert ident() not in places
    assert list(blocking.iter([])) == []
    assert list(blocking.iter([None, module._END.__class__])) == [None, object]


def test_what_an_iterator_raises():
    def items():
        yield 1
        raise ValueError("enough")

    iterator = blocking.iter(items())
    assert next(iterator) == 1
    with pytest.raises(ValueError, match="enough"):
        next(iterator)
    with pytest.raises(TypeError):
        next(blocking.iter(7))


def test_iterating_lets_the_others_go_on(gate, until, parked):
    def items():
        yield gate(1)

    task = fork(lambda: list(blocking.iter(items())))
    until(lambda: gate.entered)
    parked(task)
    gate.open()
    assert task.join() == [1]


# --- with the rest of the library ---------------------------------------------------------------


def test_it_waits_for_no_bubble(gate):
    """A call belongs to the world: the clock of a bubble stands still meanwhile."""
    log = []
    with bubble():
        go(lambda: (sleep(1), log.append("slept")))
        start = now()
        assert blocking(lambda: (time.sleep(0.001), 7)[1]) == 7
        assert (log, now()) == ([], start)
        sleep(2)
    assert log == ["slept"]


def test_a_call_may_use_what_was_made_in_a_bubble():
    with bubble():
        ch = Chan()
        task = fork(ch.recv)
        blocking(ch.send, 5)
        assert task.join() == 5


def test_garbage_is_collected_meanwhile(gate, until):
    tasks = [fork(blocking, gate, Token()) for _ in range(5)]
    until(lambda: len(gate.entered) == 5)
    gc.collect()
    gate.open()
    assert all(isinstance(task.join(), Token) for task in tasks)


def test_a_call_that_is_not_waited_for_is_no_deadlock_either(program):
    """It may still wake somebody, though it has not used the library so far."""
    result = program("""
        import threading, time
        from gofer import *

        def late(ch):
            begun.set()
            time.sleep(0.05)
            ch.send("late")

        def cancel():
            blocking(begun.wait)
            scope.cancel()

        ch, begun = Chan(), threading.Event()
        with cancel_scope() as scope:
            go(cancel)
            blocking(late, ch)
        print(ch.recv())
        try:
            ch.recv()
        except Deadlock:
            print("deadlock")
    """)
    assert result == (0, "late\ndeadlock\n", "")


def test_when_the_last_call_is_over_it_is_a_deadlock(program):
    result = program("""
        import threading
        from gofer import *

        began, stop = threading.Event(), threading.Event()
        ch = Chan()
        with cancel_scope() as scope:
            go(lambda: (blocking(began.wait), scope.cancel()))
            blocking(lambda: (began.set(), stop.wait(0.1)))
        try:
            ch.recv()
        except Deadlock:
            print("deadlock")
    """)
    assert result == (0, "deadlock\n", "")


def test_idle_threads_are_no_hope(program):
    result = program("""
        from gofer import *

        tasks = [fork(blocking, sleep, 0.001) for _ in range(5)]
        for task in tasks:
            task.join()
        try:
            Chan().recv()
        except Deadlock:
            print("deadlock")
    """)
    assert result == (0, "deadlock\n", "")


def test_a_call_that_waits_for_ever_is_no_deadlock(program):
    """The thread is at work, whatever it does."""
    result = program("""
        from gofer import *

        def call():
            with timeout(0.1):
                Chan().recv()

        try:
            blocking(call)
        except TimeoutError:
            print("no deadlock")
    """)
    assert result == (0, "no deadlock\n", "")


def test_ctrl_c_while_a_call_is_under_way(program):
    result = program("""
        import os, signal, threading
        from gofer import *

        def call():
            os.kill(os.getpid(), signal.SIGINT)
            stop.wait()
            return "done"

        stop = threading.Event()
        try:
            blocking(call)
        except KeyboardInterrupt:
            print("interrupted")
        stop.set()
        print(blocking(str, "works"))
    """)
    assert result == (0, "interrupted\nworks\n", "")


@pytest.mark.parametrize("main", ["run(main)", "main()"])
def test_the_end_with_calls_under_way(program, main):
    result = program(f"""
        import threading
        from gofer import *

        began = Chan(5)

        def call():
            began.send(None)
            threading.Event().wait()

        def main():
            for _ in range(5):
                go(blocking, call)
            for _ in range(5):
                began.recv()
            print("end")

        {main}
    """)
    assert result == (0, "end\n", "")


def test_run_unwinds_who_waits_for_a_call(program):
    result = program("""
        import threading
        from gofer import *

        def wait():
            try:
                blocking(stop.wait)
            finally:
                print("unwound")

        def main():
            go(wait)
            gosched()
            gosched()

        stop = threading.Event()
        run(main)
        stop.set()
        print(run(blocking, str, "again"))
    """)
    assert result == (0, "unwound\nagain\n", "")


def test_no_idle_thread_is_left_at_exit(program):
    result = program("""
        import atexit, threading

        def left():
            print(len([t for t in threading.enumerate() if t is not threading.main_thread()]))

        atexit.register(left)  # first in, last out

        import sys
        from gofer import *

        for task in [fork(blocking, sleep, 0.001) for _ in range(5)]:
            task.join()
        pool = sys.modules["gofer.blocking"]._pool
        while len(pool._idle) < len(pool._workers):
            gosched()
        print(len(pool._idle) > 0)
    """)
    assert result == (0, "True\n0\n", "")


def test_it_is_used_while_the_program_exits(program):
    """What can not be done any more says so, and the program ends."""
    result = program("""
        import atexit
        from gofer import *

        def late():
            try:
                print(blocking(int))
            except RuntimeError:
                print("too late")

        atexit.register(late)
        print(blocking(int))
    """)
    assert (result.status, result.err) == (0, "")
    assert result.out in ("0\n0\n", "0\ntoo late\n")


# --- fork ---------------------------------------------------------------------------------------

FORK = """
    import os, sys, threading, warnings
    from gofer import *

    warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns when there are threads

    def status(pid):
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def test_a_child_has_a_pool_of_its_own(program):
    result = program(f"""{FORK}
    stop, entered = threading.Event(), Chan(3)
    blocking.limit(7)
    tasks = [fork(blocking, lambda: (entered.send(None), stop.wait())) for _ in range(3)]
    for _ in range(3):
        entered.recv()
    print(blocking(int))
    pid = os.fork()
    if pid == 0:
        assert blocking.limit() == 7
        assert [blocking(int, n) for n in range(5)] == list(range(5))
        try:
            Chan().recv()
        except Deadlock:
            os._exit(42)
    print(status(pid))
    stop.set()
    for task in tasks:
        task.join()
    print(blocking(int))
    """)
    assert result == (0, "0\n42\n0\n", "")


def test_a_call_that_forks(program):
    """In the child the call returns into nothing, and the process ends as a forked thread does."""
    result = program(f"""{FORK}
    print(status(blocking(os.fork)))
    print(blocking(int))
    """)
    assert result == (0, "0\n0\n", "")


def test_a_call_that_forks_and_goes_on_in_the_child(program):
    result = program(f"""{FORK}
    def call():
        pid = os.fork()
        if pid == 0:
            os._exit(blocking(int, "5"))
        return pid

    print(status(blocking(call)))
    print(blocking(int))
    """)
    assert result == (0, "5\n0\n", "")
