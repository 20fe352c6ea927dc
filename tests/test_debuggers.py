"""Tracing, profiling, monitoring and debuggers, switched on and off while goroutines are parked."""

import cProfile
import io
import pdb
import pstats
import sys
import threading
import traceback

import pytest

from gofer import Chan, Goroutine, Group, fork, gosched, run

from shared import FREE_THREADED
from shared.parking import MANY, Park

pytestmark = pytest.mark.usefixtures("nothing_left")

DEBUG = hasattr(sys, "gettotalrefcount")


def leaf(park):
    value = [1]
    park()
    return value


def traced(park):
    return [leaf(park) for _ in range(2)]


def hooked(set_hook, hook, park):
    """traced(park) while that is the hook."""
    set_hook(hook)
    try:
        return traced(park)
    finally:
        set_hook(None)


@pytest.fixture(autouse=True)
def hooks_of_before():
    """Those of a debugger or of coverage that runs the tests; a test may leave any or none."""
    trace, profile = sys.gettrace(), sys.getprofile()
    yield
    sys.settrace(trace)
    sys.setprofile(profile)


@pytest.mark.usefixtures("one_worker")
def test_settrace_sees_what_it_runs():
    def trace(frame, event, arg):
        events.append((frame.f_code.co_name, event))
        return trace

    events = []
    assert fork(hooked, sys.settrace, trace, lambda: gosched()).join() == [[1], [1]]
    assert ("leaf", "call") in events
    assert ("leaf", "line") in events
    assert ("leaf", "return") in events


@pytest.mark.usefixtures("one_worker")
def test_settrace_after_a_killed_goroutine_was_served(parked):
    """Its GoroutineExit was on its way, and had to be taken back when it ended first."""

    def main():
        channel = Chan()
        task = fork(channel.recv)
        parked(task)
        channel.send(1)

    def trace(frame, event, arg):
        events.append(event)
        return trace

    events = []
    run(main)
    assert fork(hooked, sys.settrace, trace, lambda: None).join() == [[1], [1]]
    assert "line" in events


@pytest.mark.usefixtures("one_worker")
def test_a_trace_function_may_park():
    def trace(frame, event, arg):
        if frame.f_code in (leaf.__code__, traced.__code__):
            park()
            events.append(event)
            return trace
        return None

    events = []
    park = Park()
    task = fork(hooked, sys.settrace, trace, lambda: None)
    park.release([task])
    assert task.join() == [[1], [1]]
    assert {"call", "line", "return"} <= set(events)


@pytest.mark.usefixtures("one_worker")
def test_setprofile_sees_what_it_runs():
    def profile(frame, event, arg):
        events.append((frame.f_code.co_name, event))

    events = []
    assert fork(hooked, sys.setprofile, profile, lambda: gosched()).join() == [[1], [1]]
    assert ("leaf", "call") in events
    assert ("leaf", "return") in events


@pytest.mark.usefixtures("one_worker")
def test_cprofile():
    profile = cProfile.Profile()
    with Group() as g:
        for _ in range(3):
            g.go(traced, gosched)
        profile.enable()
        gosched()
        tasks = [g.go(traced, gosched) for _ in range(MANY)]
        for task in tasks:
            task.join()
        profile.disable()
        for _ in range(3):
            g.go(traced, gosched)
    text = io.StringIO()
    pstats.Stats(profile, stream=text).print_stats()
    assert "leaf" in text.getvalue()


def test_pdb(monkeypatch):
    def body():
        debugger = pdb.Pdb(stdin=io.StringIO(commands), stdout=out, nosigint=True, readrc=False)
        debugger.use_rawinput = False
        debugger.set_trace()
        value = 41
        return value + 1

    commands, out = "next\nnext\np value\nwhere\ncontinue\n", io.StringIO()
    assert fork(body).join() == 42
    assert "41" in out.getvalue()
    assert "return value + 1" in out.getvalue()


def test_printing_a_stack_inside_and_outside():
    out, gate = io.StringIO(), Chan()

    def body():
        traceback.print_stack(file=out)
        gate.recv()

    task = fork(body)
    while task.state != "waiting":
        gosched()
    assert "in body" in out.getvalue()
    task.cancel()
    Goroutine.join(task)


OBSERVED = """
    import cProfile, faulthandler, gc, io, pstats, sys, tempfile, threading
    from gofer import *

    N = 40
    gate = Chan()

    def leaf(n):
        kept = [n]
        gate.recv()
        return kept

    def generator(n):
        yield sorted([n], key=leaf)

    def top(n):
        return [x for x in generator(n)]

    def start():
        tasks = [fork(top, n) for n in range(N)]
        while not all(task.state == "waiting" for task in tasks):
            gosched()
        return tasks

    def stop(tasks):
        for _ in tasks:
            gate.send(None)
        assert [task.join() for task in tasks] == [[[n]] for n in range(N)]

    def watch(*args):
        seen.append(args[1] if len(args) > 1 else None)
        return watch

    seen = []
    {body}
    gc.collect()
    print("survived")
"""

TOGGLES = {
    "settrace on while parked": """
    tasks = start()
    sys.settrace(watch)
    gosched()
    stop(tasks)
    sys.settrace(None)
    """,
    "settrace off while parked": """
    sys.settrace(watch)
    tasks = start()
    sys.settrace(None)
    stop(tasks)
    assert seen
    """,
    "setprofile on while parked": """
    tasks = start()
    sys.setprofile(watch)
    stop(tasks)
    sys.setprofile(None)
    """,
    "setprofile off while parked": """
    sys.setprofile(watch)
    tasks = start()
    sys.setprofile(None)
    stop(tasks)
    assert seen
    """,
    "cProfile toggled while parked": """
    profile = cProfile.Profile()
    tasks = start()
    profile.enable()
    stop(tasks)
    tasks = start()
    profile.disable()
    stop(tasks)
    pstats.Stats(profile, stream=io.StringIO()).print_stats()
    """,
    "monitoring toggled while parked": """
    M = sys.monitoring
    E = M.events
    M.use_tool_id(3, "test")
    everything = E.PY_START | E.PY_RETURN | E.LINE | E.CALL | E.INSTRUCTION | E.PY_YIELD
    for n in range(30):
        if everything & 1 << n:
            M.register_callback(3, 1 << n, watch)
    tasks = start()
    M.set_events(3, everything)
    stop(tasks)
    tasks = start()
    M.set_events(3, 0)
    stop(tasks)
    for n in range(6):
        tasks = start()
        M.set_local_events(3, leaf.__code__, E.LINE | E.INSTRUCTION if n % 2 else 0)
        stop(tasks)
        M.restart_events()
    M.free_tool_id(3)
    assert seen
    """,
    "all threads traced by another": """
    stopped = []
    def flip():
        while not stopped:
            threading.settrace_all_threads(watch)
            threading.settrace_all_threads(None)
    thread = threading.Thread(target=flip)
    thread.start()
    for _ in range(20):
        tasks = start()
        gosched()
        stop(tasks)
    stopped.append(1)
    thread.join()
    """,
}

LOOKS = {
    "faulthandler": """
    tasks = start()
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        assert "File" in file.read()
    stop(tasks)
    """,
    "frames watched by a thread": """
    stopped = []
    def spy():
        while not stopped:
            for frame in list(sys._current_frames().values()):
                while frame is not None:
                    frame.f_lineno, frame.f_code.co_name
                    frame = frame.f_back
                    seen.append(1)
            with open("/dev/null", "w") as null:
                faulthandler.dump_traceback(null, all_threads=True)
    thread = threading.Thread(target=spy)
    thread.start()
    for _ in range(50):
        tasks = start()
        gosched()
        stop(tasks)
    while not seen:
        gosched()
    stopped.append(1)
    thread.join()
    """,
    "a monitoring callback that parks": """
    M = sys.monitoring
    M.use_tool_id(3, "test")
    def line(*args):
        seen.append(1)
        if len(seen) % 3 == 0:
            gosched()
    M.register_callback(3, M.events.LINE, line)
    M.set_local_events(3, leaf.__code__, M.events.LINE)
    for _ in range(5):
        stop(start())
    M.set_local_events(3, leaf.__code__, 0)
    M.free_tool_id(3)
    assert seen
    """,
    "a profile function that parks": """
    def profile(frame, event, arg):
        seen.append(event)
        if len(seen) % 5 == 0 and frame.f_code is leaf.__code__:
            gosched()
    tasks = start()
    stop(tasks)
    sys.setprofile(profile)
    assert fork(int).join() == 0
    tasks = start()
    stop(tasks)
    sys.setprofile(None)
    """,
}


# Free-threaded CPython lets threads use a profiler or a trace function while another takes it away:
# programs of threads that do the same end in a crash or an endless loop.
def workers_for(name):
    if FREE_THREADED and "all threads" in name:
        pytest.skip("CPython's, with threads alone too")
    return {"GOFER_MAXPROCS": "1"} if FREE_THREADED and "cProfile" in name else {}


def needs(name):
    if "monitoring" in name and not hasattr(sys, "monitoring"):
        pytest.skip("no sys.monitoring before 3.12")
    if "all threads" in name and not hasattr(threading, "settrace_all_threads"):
        pytest.skip("no settrace_all_threads before 3.12")
    if DEBUG and sys.version_info >= (3, 12) and name in TOGGLES and "on while" not in name:
        pytest.skip("CPython asserts that what runs in instrumented code is a thread's")


def indent(body):
    return body.strip("\n ").replace("\n    ", "\n" + " " * 4)


@pytest.mark.parametrize("name", TOGGLES)
def test_toggled(program, name):
    needs(name)
    source = OBSERVED.format(body=indent(TOGGLES[name]))
    assert program(source, **workers_for(name)) == (0, "survived\n", "")


@pytest.mark.parametrize("name", LOOKS)
def test_watched(program, name):
    needs(name)
    assert program(OBSERVED.format(body=indent(LOOKS[name]))) == (0, "survived\n", "")
