"""gofer.runtime: looking at goroutines, counting them, workers, the hook for panics."""

import inspect
import io
import re
import sys
import threading
import time

import pytest

from gofer import (
    Chan,
    Group,
    Mutex,
    Semaphore,
    WaitGroup,
    current,
    fork,
    go,
    gosched,
    run,
    runtime,
    select,
    sleep,
)

from shared import FREE_THREADED

pytestmark = pytest.mark.usefixtures("nothing_left")


def here(offset=0):
    """The line of the caller, as file:line."""
    frame = inspect.currentframe().f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno + offset}"


def info_of(g):
    return next(info for info in runtime.goroutines() if info.id == g.id)


# --- goroutines() -------------------------------------------------------------------------------


def test_main_is_listed():
    info = runtime.goroutines()[0]
    assert info.id == 1
    assert info.state == "running"
    assert info.waiting_on == ""
    assert info.since is None
    assert info.created_at == ""
    assert info.parent is None
    assert info.name == current().name
    assert " at " in info.where


def test_all_of_info_of_one_that_waits(parked):
    gate = Chan()

    def keeper():
        return gate.recv()

    before = time.monotonic()
    g, place = fork(keeper), here()
    g.name = "the keeper"
    parked(g)
    info = info_of(g)
    assert info.id == g.id
    assert info.name == "the keeper"
    assert info.state == "waiting"
    assert info.waiting_on.startswith("chan receive")
    assert before - 1 <= info.since <= time.monotonic()
    name = "test_all_of_info_of_one_that_waits"
    line = keeper.__code__.co_firstlineno + 1
    assert info.where == f"{name}.<locals>.keeper at {__file__}:{line}"
    assert info.created_at == f"{name} at {place}"
    assert info.parent == 1
    gate.send(None)
    g.join()
    assert g.id not in [info.id for info in runtime.goroutines()]


def test_info_is_a_value():
    info = runtime.goroutines()[0]
    with pytest.raises(AttributeError):
        info.id = 3
    assert len({info, info}) == 1


WAITS = {
    "chan receive": lambda stop: stop.recv_ok(),
    "chan send": lambda stop: send_until(stop),
    "select": lambda stop: select(stop.recv_ok, Chan().recv),
    "sleep": lambda stop: [sleep(1000)],
    "join": lambda stop: fork(stop.recv_ok).join(),
    "mutex": lambda stop: [(m.lock(), m.lock()) for m in [Mutex()]],
    "semaphore": lambda stop: [(s.acquire(), s.acquire()) for s in [Semaphore(1)]],
    "wait group": lambda stop: [(wg.add(), wg.wait()) for wg in [WaitGroup()]],
}


def send_until(stop):
    Chan().send(stop)


@pytest.mark.parametrize("why", WAITS)
def test_the_reason_to_wait_is_told(why, parked):
    stop = Chan()
    task = fork(WAITS[why], stop)
    parked(task)
    assert why in info_of(task).waiting_on
    text = io.StringIO()
    runtime.dump(text)
    assert re.search(rf"^goroutine {task.id} \[[^]]*{why}", text.getvalue(), re.M)
    task.cancel()
    stop.close()


@pytest.mark.usefixtures("one_worker")
def test_one_that_has_not_started_is_listed():
    g = go(int)
    info = info_of(g)
    assert info.state == "runnable"
    assert (info.waiting_on, info.since) == ("", None)
    assert info.parent == 1
    g.join()


@pytest.mark.usefixtures("one_worker")
def test_one_that_yielded_is_listed():
    stop = []

    def spin():
        while not stop:
            gosched()

    g = go(spin)
    gosched()
    info = info_of(g)
    assert info.state == "runnable"
    assert "spin" in info.where
    stop.append(1)
    g.join()


def test_parents_are_told():
    seen, gate = Chan(), Chan()

    def parent():
        child = go(gate.recv)
        seen.send((current(), child))

    go(parent)
    g, child = seen.recv()
    g.join()
    info = info_of(child)
    assert info.parent == g.id
    assert "parent" in info.created_at
    gate.send(None)
    child.join()


def test_they_are_ordered_by_id(parked):
    gate = Chan()
    gs = [go(gate.recv_ok) for _ in range(50)]
    parked(*gs)
    ids = [info.id for info in runtime.goroutines()]
    assert ids == sorted(ids)
    assert {g.id for g in gs} < set(ids)
    gate.close()
    for g in gs:
        g.join()


def test_looking_from_a_goroutine_and_a_thread(parked):
    gate = Chan()
    g = go(gate.recv)
    parked(g)
    assert g.id in [info.id for info in fork(runtime.goroutines).join()]
    seen = []
    thread = threading.Thread(target=lambda: seen.extend(runtime.goroutines()))
    thread.start()
    thread.join()
    assert g.id in [info.id for info in seen]
    gate.send(None)
    g.join()


def test_looking_while_they_come_and_go():
    stop = []

    def churn():
        while not stop:
            fork(sorted, [3, 1, 2], key=lambda n: (gosched(), n)[1]).join()

    gs = [go(churn) for _ in range(10)]
    for _ in range(100):
        for info in runtime.goroutines():
            assert info.state in ("runnable", "running", "waiting", "dead")
        runtime.dump(io.StringIO())
        gosched()
    stop.append(1)
    for g in gs:
        g.join()


# --- dump ---------------------------------------------------------------------------------------


def test_dump_shows_frames_and_creator(parked):
    gate = Chan()

    def inner(_):
        gate.recv()

    def outer():
        sorted([1], key=inner)

    g, place = go(outer), here()
    parked(g)
    text = io.StringIO()
    runtime.dump(text)
    block = next(
        block
        for block in text.getvalue().split("\n\n")
        if block.startswith(f"goroutine {g.id} [chan receive]:")
    )
    name = "test_dump_shows_frames_and_creator"
    assert block.splitlines() == [
        f"goroutine {g.id} [chan receive]:",
        f"{name}.<locals>.inner(...)",
        f"\t{__file__}:{inner.__code__.co_firstlineno + 1}",
        f"{name}.<locals>.outer(...)",
        f"\t{__file__}:{outer.__code__.co_firstlineno + 1}",
        f"created by {name} in goroutine 1",
        f"\t{place}",
    ]
    assert text.getvalue().startswith("goroutine 1 [running]:\n")
    gate.send(None)
    g.join()


def test_dump_writes_to_stderr(capsys):
    runtime.dump()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("goroutine 1 [running]:\n")


def test_dump_to_what_is_no_file():
    with pytest.raises(AttributeError):
        runtime.dump(3)


# --- counting -----------------------------------------------------------------------------------


def test_num_goroutine_counts_those_that_have_not_ended(parked):
    before, gate = runtime.num_goroutine(), Chan()
    assert before >= 1
    gs = [go(gate.recv_ok) for _ in range(100)]
    assert runtime.num_goroutine() == before + 100
    parked(*gs)
    assert runtime.num_goroutine() == before + 100
    assert fork(runtime.num_goroutine).join() >= before + 100
    gate.close()
    for g in gs:
        g.join()


def test_stats_are_numbers_that_grow():
    first = runtime.stats()
    assert first
    assert all(isinstance(name, str) and isinstance(n, int) for name, n in first.items())
    with Group() as g:
        for _ in range(100):
            g.go(gosched)
    second = runtime.stats()
    assert second.keys() == first.keys()
    assert any(second[name] >= first[name] + 100 for name in first)


# --- workers ------------------------------------------------------------------------------------


def test_gomaxprocs_tells_and_sets():
    before = runtime.gomaxprocs()
    try:
        assert before >= 1
        assert runtime.gomaxprocs(1) == before
        assert runtime.gomaxprocs() == 1
        assert fork(int).join() == 0
    finally:
        runtime.gomaxprocs(before)
    assert runtime.gomaxprocs() == before


@pytest.mark.parametrize("value", ["2", 1.5, [1]])
def test_gomaxprocs_takes_a_number(value):
    before = runtime.gomaxprocs()
    with pytest.raises(TypeError):
        runtime.gomaxprocs(value)
    assert runtime.gomaxprocs() == before


def test_workers_from_the_environment(program):
    source = "from gofer import runtime; print(runtime.gomaxprocs())"
    assert program(source, GOFER_MAXPROCS="1") == (0, "1\n", "")
    if FREE_THREADED:
        assert program(source, GOFER_MAXPROCS="3") == (0, "3\n", "")
    for nonsense in ("", "many", "0", "-1"):
        result = program(source, GOFER_MAXPROCS=nonsense)
        assert result.status == 0 or "GOFER_MAXPROCS" in result.err


def test_changing_the_number_of_workers_while_they_work():
    before = runtime.gomaxprocs()
    try:
        for n in (1, 4, 2, 1, 3, 1):
            runtime.gomaxprocs(n)
            with Group() as g:
                tasks = [g.go(lambda k=k: (gosched(), k)[1]) for k in range(200)]
            assert [task.join() for task in tasks] == list(range(200))
    finally:
        runtime.gomaxprocs(before)


@pytest.mark.skipif(not FREE_THREADED, reason="has the GIL")
def test_importing_leaves_the_gil_off(program):
    result = program("import sys, gofer; print(sys._is_gil_enabled())", PYTHON_GIL="0")
    assert result.out == "False\n"
    result = program("import sys, gofer; print(sys._is_gil_enabled())")
    assert (result.out, result.err) == ("False\n", "")


# --- on_panic -----------------------------------------------------------------------------------


def test_on_panic_returns_what_was_set_before():
    before = runtime.on_panic(None)
    try:
        assert runtime.on_panic(print) is None
        assert runtime.on_panic(repr) is print
        assert runtime.on_panic(None) is repr
    finally:
        runtime.on_panic(before)


# --- names --------------------------------------------------------------------------------------


def test_goexit_and_gosched_stand_here_too():
    assert run(lambda: fork(runtime.gosched).join()) is None
    go(runtime.goexit).join()


def test_importing_starts_nothing(program):
    result = program("""
        import threading
        before = threading.active_count(), len(__import__("os").listdir("/proc/self/task")) \\
            if __import__("sys").platform == "linux" else 0
        import gofer
        after = threading.active_count(), len(__import__("os").listdir("/proc/self/task")) \\
            if __import__("sys").platform == "linux" else 0
        print(before == after, gofer.runtime.num_goroutine() <= 1)
    """)
    assert result == (0, "True True\n", "")
    assert "gofer" in sys.modules
