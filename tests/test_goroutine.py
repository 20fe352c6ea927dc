"""go, fork and what they return: Goroutine, Task, join, current, gosched."""

import contextlib
import contextvars
import gc
import threading
import weakref

import pytest

from gofer import Chan, Goroutine, Group, Task, current, fork, go, goexit, gosched

from shared import Token, in_thread

pytestmark = pytest.mark.usefixtures("nothing_left")


# --- what they return ---------------------------------------------------------------------------


def test_go_returns_a_goroutine_and_fork_a_task():
    g, task = go(int), fork(int)
    assert type(g) is Goroutine
    assert type(task) is Task
    assert isinstance(task, Goroutine)
    assert g.join() is None
    assert task.join() == 0


def test_goroutines_are_not_made_by_hand():
    for kind in (Goroutine, Task):
        with pytest.raises(TypeError):
            kind()


def test_task_takes_a_type_for_checkers():
    assert Task[int].__origin__ is Task
    assert Task[int].__args__ == (int,)


def test_a_goroutine_is_equal_to_itself_only():
    g, other = go(int), go(int)
    assert g != other
    assert len({g, other, g}) == 2
    g.join()
    other.join()


def test_repr_tells_who_it_is(parked):
    gate = Chan()
    g = go(gate.recv)
    g.name = "the keeper"
    parked(g)
    text = repr(g)
    assert str(g.id) in text
    assert "the keeper" in text
    assert "waiting" in text
    gate.send(None)
    g.join()
    assert "dead" in repr(g)
    assert str(g.id) in repr(g)


def test_ids_never_repeat():
    seen = [fork(lambda: current().id).join() for _ in range(300)]
    with Group() as group:
        tasks = [group.go(lambda: current().id) for _ in range(300)]
    seen += [task.join() for task in tasks]
    seen += [in_thread(lambda: fork(lambda: current().id).join()) for _ in range(10)]
    assert len(set(seen)) == len(seen)
    assert min(seen) > 1


def test_main_is_number_one():
    assert current().id == 1
    assert current() is current()
    assert current().state == "running"
    assert not current().done


def test_current_is_what_go_returned():
    seen = Chan(2)
    g = go(lambda: seen.send(current()))
    task = fork(lambda: seen.send(current()))
    g.join()
    task.join()
    assert {seen.recv(), seen.recv()} == {g, task}


def test_a_thread_has_one_of_its_own():
    def body():
        return current(), current(), current().state

    me, again, state = in_thread(body)
    assert me is again
    assert me.id != 1
    assert state == "running"
    assert me is not in_thread(body)[0]


def test_name_can_be_set():
    g = go(lambda: None)
    assert isinstance(g.name, str)
    g.name = "läufer"
    assert g.name == "läufer"
    g.join()
    assert g.name == "läufer"

    def rename():
        current().name = "inside"
        return current().name

    task = fork(rename)
    assert task.join() == "inside"
    assert task.name == "inside"


@pytest.mark.parametrize("look", [repr, lambda g: g.name])
def test_name_can_be_asked_for_while_it_ends(look):
    """Nothing but the goroutine holds its function: no name may be read from one that is gone."""
    for task in [fork(lambda n: n, n) for n in range(300)]:
        while not task.done:
            for _ in range(20):
                assert "<lambda>" in look(task)
            gosched()
        assert "<lambda>" in look(task)


@pytest.mark.parametrize("value", [None, 3, b"bytes"])
def test_name_is_text(value):
    g = go(lambda: None)
    with pytest.raises(TypeError):
        g.name = value
    g.join()


@pytest.mark.parametrize("attribute", ["id", "state", "done"])
def test_the_rest_can_not_be_set(attribute):
    with pytest.raises(AttributeError):
        setattr(current(), attribute, getattr(current(), attribute))


@pytest.mark.usefixtures("one_worker")
def test_states_in_their_order(parked):
    gate, states = Chan(), []
    g = go(lambda: (states.append(current().state), gate.recv()))
    assert (g.state, g.done) == ("runnable", False)
    parked(g)
    assert (g.state, g.done) == ("waiting", False)
    gate.send(None)
    assert states == ["running"]
    assert g.state in ("runnable", "dead")
    g.join()
    assert (g.state, g.done) == ("dead", True)


def test_who_is_served_waits_no_longer(parked):
    """Also when it is another worker's, and that one is busy or asleep."""
    for _ in range(50):
        gate = Chan()
        gs = [go(gate.recv) for _ in range(10)]
        parked(*gs)
        for _ in gs:
            gate.send(None)
        assert [g for g in gs if g.state == "waiting"] == []


def test_weak_references_do_not_keep_it(until):
    g = go(int)
    alive = weakref.ref(g)
    g.join()
    del g
    until(lambda: alive() is None)


def test_it_runs_though_nobody_keeps_the_handle():
    done = Chan()
    go(lambda: done.send("ran"))
    fork(lambda: done.send("ran"))
    gc.collect()
    assert [done.recv(), done.recv()] == ["ran", "ran"]


# --- join ---------------------------------------------------------------------------------------


def test_join_waits_for_the_end(parked):
    gate, log = Chan(), []

    def worker():
        gate.recv()
        log.append("worker")

    g = go(worker)
    joiners = [go(lambda: (g.join(), log.append("joiner"))) for _ in range(5)]
    parked(g, *joiners)
    assert log == []
    gate.send(None)
    for joiner in joiners:
        joiner.join()
    assert log == ["worker"] + ["joiner"] * 5
    g.join()
    g.join()


def test_join_of_a_goroutine_that_left():
    g = go(goexit)
    assert g.join() is None
    assert g.done


def test_join_of_a_goroutine_in_a_thread(parked):
    gate = Chan()
    task = fork(gate.recv)
    parked(task)
    thread = threading.Thread(target=gate.send, args=["value"])
    thread.start()
    assert in_thread(task.join) == "value"
    thread.join()


def test_join_of_a_thread():
    gate, known = Chan(), []

    def body():
        known.append(current())
        used.set()
        gate.recv()

    used = threading.Event()
    thread = threading.Thread(target=body, daemon=True)  # a failure here must not keep the process
    thread.start()
    used.wait()  # from then on it counts as one that may wake others
    [g] = known
    assert g.state in ("runnable", "running", "waiting")
    gate.send(None)
    g.join()
    assert g.done
    thread.join()


def test_results_are_passed_on_unchanged():
    value = [object()]
    task = fork(lambda: value)
    assert task.join() is value
    assert task.join() is value
    assert task.exception() is None


def test_a_failure_is_kept_for_the_joiner():
    error = KeyError("lost")

    def fail():
        raise error

    task = fork(fail)
    for _ in range(2):
        with pytest.raises(KeyError) as caught:
            task.join()
        assert caught.value is error
    assert task.exception() is error
    names = [entry.name for entry in caught.traceback]
    assert names[-1] == "fail"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, GeneratorExit, BaseException])
def test_a_failure_need_not_be_an_exception(kind):
    def fail():
        raise kind

    task = fork(fail)
    assert type(task.exception()) is kind
    with pytest.raises(kind):
        task.join()


def test_exception_waits_too(parked):
    gate = Chan()
    task = fork(gate.recv)
    waiter = fork(task.exception)
    parked(task, waiter)
    gate.send(None)
    assert waiter.join() is None


def test_a_failure_that_nobody_saw_is_reported(unraisable, until):
    error = ValueError("nobody looked")

    def fail():
        raise error

    task = fork(fail)
    Goroutine.join(task)
    assert task.done
    assert unraisable == []
    del task
    until(lambda: unraisable)
    assert unraisable == [error]


@pytest.mark.parametrize("look", [lambda task: task.exception(), lambda task: task.join()])
def test_a_failure_that_was_seen_is_not_reported(unraisable, look):
    task = fork(lambda: 1 / 0)
    with contextlib.suppress(ZeroDivisionError):
        look(task)
    del task
    gc.collect()
    assert unraisable == []


def test_a_cancelled_task_is_not_reported(unraisable, parked):
    task = fork(Chan().recv)
    parked(task)
    task.cancel()
    Goroutine.join(task)
    del task
    gc.collect()
    assert unraisable == []


# --- what is given up, and when -----------------------------------------------------------------


def test_function_and_arguments_go_with_the_goroutine():
    token, other = Token(), Token()
    refs = [weakref.ref(token), weakref.ref(other)]

    def body(argument, key):
        return argument is not None and key is not None

    refs.append(weakref.ref(body))
    tasks = [fork(body, token, key=other), fork(body, token, other), go(body, token, other)]
    del token, other, body
    for task in tasks:
        task.join()
    gc.collect()
    assert [ref() for ref in refs] == [None] * 3


def test_a_result_goes_with_its_task(until):
    task = fork(Token)
    alive = weakref.ref(task.join())
    assert alive() is not None
    del task
    until(lambda: gc.collect() >= 0 and alive() is None)  # its owner may be asleep


def test_a_task_in_a_circle_is_collected(until):
    token = Token()
    alive = weakref.ref(token)
    holder = [token]
    task = fork(holder.copy)
    task.join().append(task)
    del task, token, holder
    until(lambda: gc.collect() >= 0 and alive() is None)


def test_a_failed_task_in_a_circle_is_collected(until):
    class Circle(Exception):
        pass

    def fail():
        raise Circle(current())

    task = fork(fail)
    error = task.exception()
    alive = weakref.ref(error)
    del error, task
    until(lambda: gc.collect() >= 0 and alive() is None)


# --- many, and from threads ---------------------------------------------------------------------


def test_ten_thousand():
    total = Chan(10_000)
    for n in range(10_000):
        go(total.send, n)
    assert sum(total.recv() for _ in range(10_000)) == 49_995_000


def test_goroutines_start_goroutines():
    def tree(depth):
        if depth == 0:
            return 1
        halves = [fork(tree, depth - 1), fork(tree, depth - 1)]
        return sum(half.join() for half in halves)

    assert fork(tree, 10).join() == 1024


def test_threads_start_goroutines():
    results = Chan(400)

    def body():
        tasks = [fork(results.send, n) for n in range(100)]
        for task in tasks:
            task.join()

    threads = [threading.Thread(target=body) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results.recv() for _ in range(400)) == sorted(list(range(100)) * 4)


def test_gosched_lets_others_run():
    log = []
    g = go(log.append, 1)
    while not log:
        gosched()
    g.join()


def test_gosched_in_a_thread():
    assert in_thread(gosched) is None


def test_a_goroutine_that_never_stops_yielding_starves_nobody():
    stop, passed = [], Chan()

    def spin():
        while not stop:
            gosched()

    spinners = [go(spin) for _ in range(5)]
    ping = Chan()

    def pong():
        for n in range(100):
            ping.send(n)
        passed.send("done")

    go(pong)
    assert [ping.recv() for _ in range(100)] == list(range(100))
    assert passed.recv() == "done"
    stop.append(True)
    for g in spinners:
        g.join()


def test_two_that_wake_each_other_starve_nobody(until):
    stop, here, there, log = [], Chan(), Chan(), []

    def ping():
        while not stop:
            here.send(None)
            there.recv()
        here.close()

    def pong():
        for _ in here:
            there.send(None)

    pair = [go(ping), go(pong)]
    third = go(log.append, "ran")
    until(lambda: log)
    stop.append(True)
    for g in (*pair, third):
        g.join()


# --- the context --------------------------------------------------------------------------------


LEVEL = contextvars.ContextVar("LEVEL", default=0)


@pytest.mark.parametrize("start", [go, fork])
def test_context_variables_are_inherited(start):
    seen = Chan(1)
    token = LEVEL.set(5)
    try:
        g = start(lambda: seen.send(LEVEL.get()))
        LEVEL.set(6)
        Goroutine.join(g)
        assert seen.recv() == 5
    finally:
        LEVEL.reset(token)


def test_context_variables_are_its_own():
    def body(n):
        LEVEL.set(n)
        for _ in range(5):
            gosched()
            assert LEVEL.get() == n
        return fork(LEVEL.get).join()

    tasks = [fork(body, n) for n in range(1, 30)]
    assert [task.join() for task in tasks] == list(range(1, 30))
    assert LEVEL.get() == 0
