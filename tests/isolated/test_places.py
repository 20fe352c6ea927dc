"""Calls from odd places: the collector, signal handlers, subinterpreters, callbacks of threads."""

import sys

import pytest

REFUSED = "inside the garbage collector"

WAITS = {
    "recv": "Chan().recv()",
    "recv_ok": "Chan().recv_ok()",
    "send": "Chan().send(1)",
    "select": "select(Chan().recv)",
    "sleep": "sleep(0.001)",
    "sleep(0)": "sleep(0)",
    "gosched": "gosched()",
    "join": "fork(Chan().recv).join()",
    "mutex": "m = Mutex(); m.lock(); m.lock()",
    "semaphore": "s = Semaphore(1); s.acquire(2 - 1); s.acquire()",
    "wait group": "w = WaitGroup(); w.add(); w.wait()",
}
READY = {
    "buffered": "ch = Chan(1); ch.send(1); ch.recv()",
    "select": "select(Chan().recv, default=True)",
    "go": "started.append(go(done.append, 1))",
    "fork": "started.append(fork(done.append, 1))",
    "close": "Chan().close()",
    "current": "current().id",
    "mutex": "Mutex().lock()",
    "look": "runtime.goroutines()",
    "count": "runtime.num_goroutine()",
    "wake": "released.append(gate.close())",
}


@pytest.mark.parametrize("how", WAITS)
def test_waiting_in_a_collected_destructor_is_refused(program, how):
    result = program(f"""
        import gc
        from gofer import *

        class Circle:
            def __init__(self):
                self.me = self
            def __del__(self):
                try:
                    {WAITS[how]}
                except RuntimeError as error:
                    log.append(str(error))

        log = []
        gc.disable()
        Circle()
        gc.collect()
        print(len(log), "{REFUSED}" in log[0])
        fork(lambda: [Circle() and None, gc.collect()]).join()
        print(len(log), "{REFUSED}" in log[1])
        print(fork(int).join())
    """)
    assert result == (0, "1 True\n2 True\n0\n", "")


@pytest.mark.parametrize("how", WAITS)
def test_waiting_in_a_gc_callback_is_refused(program, how):
    result = program(f"""
        import gc
        from gofer import *

        def callback(phase, info):
            try:
                {WAITS[how]}
            except RuntimeError as error:
                log.append((phase, "{REFUSED}" in str(error)))

        log = []
        gc.disable()
        gc.callbacks.append(callback)
        gc.collect()
        gc.callbacks.clear()
        print(log)
        print(fork(int).join())
    """)
    assert result == (0, "[('start', True), ('stop', True)]\n0\n", "")


@pytest.mark.parametrize("how", READY)
def test_what_does_not_wait_works_there(program, how):
    result = program(f"""
        import gc
        from gofer import *

        class Circle:
            def __init__(self):
                self.me = self
            def __del__(self):
                {READY[how]}
                log.append("ok")

        started, done, released, log = [], [], [], []
        gate = Chan()
        waiting = go(gate.recv_ok)
        while waiting.state != "waiting":
            gosched()
        gc.disable()
        Circle()
        gc.collect()
        for g in started:
            g.join()
        print(len(started) == len(done), log)
        if not released:
            gate.close()
        waiting.join()
    """)
    assert result == (0, "True ['ok']\n", "")


def test_a_collection_in_a_goroutine_while_others_wait(program):
    """Refusing must not outlive the collection, nor reach another goroutine."""
    result = program("""
        import gc
        from gofer import *

        class Circle:
            def __init__(self):
                self.me = self
            def __del__(self):
                try:
                    gosched()
                except RuntimeError:
                    log.append(1)

        def body():
            for _ in range(20):
                Circle()
                gc.collect()
                gosched()
            return "ok"

        log = []
        tasks = [fork(body) for _ in range(5)]
        print({task.join() for task in tasks}, len(log))
    """)
    assert result == (0, "{'ok'} 100\n", "")


def test_automatic_collections_in_the_middle_of_it_all(program):
    result = program("""
        import gc
        from gofer import *

        class Circle:
            def __init__(self):
                self.me = self
                self.more = [[] for _ in range(50)]  # enough to be collected, everywhere
            def __del__(self):
                go(int)
                try:
                    Chan().recv()
                except RuntimeError:
                    log.append(1)

        def body(n):
            for _ in range(50):
                Circle()
                ch.send(n)
            return n

        log, ch = [], Chan()
        gc.set_threshold(7)
        tasks = [fork(body, n) for n in range(10)]
        total = sum(ch.recv() for _ in range(500))
        print(total, [task.join() for task in tasks] == list(range(10)), len(log) > 0)
    """)
    assert result == (0, "2250 True True\n", "")


# --- signal handlers ----------------------------------------------------------------------------


def test_a_signal_handler_may_use_it(program):
    result = program("""
        import signal
        from gofer import *

        def handler(number, frame):
            ch = Chan()
            go(ch.send, "from a goroutine")
            log.append(ch.recv())
            sleep(0)
            with Group() as g:
                g.go(log.append, "from a member")

        log = []
        signal.signal(signal.SIGUSR1, handler)
        signal.raise_signal(signal.SIGUSR1)
        fork(lambda: [signal.raise_signal(signal.SIGUSR1), 0][1]).join()
        print(log == ["from a goroutine", "from a member"] * 2)
    """)
    assert result == (0, "True\n", "")


def test_a_storm_of_signals(program):
    result = program("""
        import os, signal, threading
        from gofer import *

        def handler(number, frame):
            seen.append(1)
            go(int)

        def storm():
            while not stop:
                os.kill(os.getpid(), signal.SIGUSR1)

        seen, stop = [], []
        signal.signal(signal.SIGUSR1, handler)
        thread = threading.Thread(target=storm)
        thread.start()
        ch = Chan()
        for n in range(3000):
            go(ch.send, n)
            assert ch.recv() == n
        while not seen:
            gosched()
        stop.append(1)
        thread.join()
        print("survived")
    """)
    assert result == (0, "survived\n", "")


def test_a_timer_signal_while_all_wait(program):
    result = program("""
        import signal
        from gofer import *

        def handler(number, frame):
            seen.append(current().id)
            if len(seen) == 5:
                signal.setitimer(signal.ITIMER_REAL, 0)
                ch.close()

        seen, ch = [], Chan()
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        after_func(1000, print)  # something may still happen: no deadlock
        print(ch.recv_ok(), seen)
    """)
    assert result == (0, "(None, False) [1, 1, 1, 1, 1]\n", "")


def test_a_wakeup_fd_still_works(program):
    result = program("""
        import os, signal, socket
        from gofer import *

        reader, writer = socket.socketpair()
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno())
        signal.signal(signal.SIGUSR1, lambda number, frame: ch.send(1))
        ch = Chan(1)
        go(lambda: os.kill(os.getpid(), signal.SIGUSR1))
        print(ch.recv(), reader.recv(1)[0] == signal.SIGUSR1)
        signal.set_wakeup_fd(-1)
        reader.close()
        writer.close()
    """)
    assert result == (0, "1 True\n", "")


# --- subinterpreters ----------------------------------------------------------------------------

SUBINTERPRETER = """
    import {module} as interpreters

    def attempt(*args):
        interp = interpreters.create(*args)
        source = '''if True:
            try:
                import gofer
            except ImportError as error:
                print("refused:", error, flush=True)
            else:
                print("imported", flush=True)
        '''
        failure = interpreters.run_string(interp, source)
        if failure:
            print("refused:", failure)
        interpreters.destroy(interp)

    {before}
    for args in {settings}:
        attempt(*args)
    import gofer
    print(gofer.fork(int).join())
"""


@pytest.mark.parametrize("before", ["", "import gofer; gofer.fork(int).join()"])
def test_a_subinterpreter_is_refused(program, before):
    if sys.version_info < (3, 13):
        module, settings = "_xxsubinterpreters", "[()]"
    else:
        module, settings = "_interpreters", "[(), ('legacy',)]"
    pytest.importorskip(module)
    result = program(SUBINTERPRETER.format(module=module, before=before, settings=settings))
    assert result.status == 0
    lines = result.out.splitlines()
    assert lines[-1] == "0"
    assert len(lines) >= 2
    assert all("refused" in line and "interpreter" in line for line in lines[:-1])


# --- embedding in other machinery ---------------------------------------------------------------


def test_in_a_trace_function_of_a_thread(program):
    result = program("""
        import sys, threading
        from gofer import *

        def trace(frame, event, arg):
            if event == "call":
                gosched()
                log.append(fork(int).join())

        def traced():
            return 1

        def body():
            sys.settrace(trace)
            traced()
            sys.settrace(None)

        log = []
        thread = threading.Thread(target=body)
        thread.start()
        while thread.is_alive():
            gosched()
        print(log)
    """)
    assert result.status == 0
    assert set(result.out) <= set("[0, ]\n")
    assert "0" in result.out


def test_asyncio_inside_a_goroutine(program):
    result = program("""
        import asyncio
        from gofer import *

        async def main(n):
            await asyncio.sleep(0)
            ch = Chan(1)
            ch.send(n)
            return ch.recv()

        print([fork(asyncio.run, main(n)).join() for n in range(3)])
    """)
    assert result == (0, "[0, 1, 2]\n", "")


def test_in_ctypes_callbacks(program):
    """Frames of C code that is not CPython's lie between those that park."""
    pytest.importorskip("ctypes")
    result = program("""
        import ctypes
        from gofer import *

        KIND = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int)

        def nested(n):
            def callback(m):
                gate.recv()
                return nested(m - 1) + 1 if m else 0
            return KIND(callback)(n)

        gate = Chan()
        tasks = [fork(nested, 5) for _ in range(10)]
        for _ in range(60):
            gate.send(None)
        print({task.join() for task in tasks})
    """)
    assert result == (0, "{5}\n", "")


def test_in_a_qsort_callback(program):
    """libc's qsort has frames of its own on the slice."""
    pytest.importorskip("ctypes")
    result = program("""
        import ctypes, sys
        from gofer import *

        COMPARE = ctypes.PYFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int)
        )
        qsort = ctypes.PyDLL(None).qsort

        def body(n):
            def compare(a, b):
                gosched()
                return a[0] - b[0]
            array = (ctypes.c_int * 20)(*((k * 7 + n) % 20 for k in range(20)))
            qsort(array, 20, ctypes.sizeof(ctypes.c_int), COMPARE(compare))
            return list(array)

        tasks = [fork(body, n) for n in range(10)]
        print(all(task.join() == list(range(20)) for task in tasks))
    """)
    assert result == (0, "True\n", "")
