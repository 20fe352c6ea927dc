"""Signals: every thread has the program's mask, and none is lost while the main thread falls asleep."""

import pytest

ELSEWHERE = """
    import os, signal, subprocess, sys, threading
    from gofer import *

    def elsewhere(fn):
        '''What fn() returns on a worker that is not the main thread.'''
        answers = []

        def body():
            main = threading.get_ident() == threading.main_thread().ident
            answers.append((main, fn()))

        def start():
            go(body).join()

        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
        (main, answer), = answers
        assert not main
        return answer
"""


@pytest.mark.parametrize("blocked", ["", "signal.SIGUSR1"])
def test_every_worker_has_the_mask_of_the_program(program, blocked):
    result = program(f"""{ELSEWHERE}
    signal.pthread_sigmask(signal.SIG_BLOCK, [{blocked}])
    go(int).join()
    mask = elsewhere(lambda: signal.pthread_sigmask(signal.SIG_BLOCK, []))
    print(mask == {{{blocked}}} if mask else not [{blocked}])
    """)
    assert result == (0, "True\n", "")


def test_a_child_started_elsewhere_can_be_terminated(program):
    result = program(f"""{ELSEWHERE}
    def child():
        wait = "import signal; print(flush=True); signal.pause()"
        process = subprocess.Popen([sys.executable, "-c", wait], stdout=subprocess.PIPE)
        process.stdout.readline()
        process.terminate()
        process.stdout.close()
        return process.wait()

    print(elsewhere(child) == -signal.SIGTERM)
    """)
    assert result == (0, "True\n", "")


def test_a_child_forked_elsewhere_can_be_terminated(program):
    result = program(
        f"""{ELSEWHERE}
    def child():
        ready, tell = os.pipe()
        pid = os.fork()
        if not pid:
            os.write(tell, b"1")
            sleep(1000)
        os.read(ready, 1)
        os.kill(pid, signal.SIGTERM)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    print(elsewhere(child) == -signal.SIGTERM)
    """,
        flags=["-W", "ignore"],
    )
    assert result == (0, "True\n", "")


def test_a_handler_that_is_no_python_code(program):
    """Nothing runs in the evaluation loop then, and goroutine 1 goes to sleep again."""
    result = program("""
        import functools, operator, os, signal, threading, time as clock
        from gofer import *

        def send():
            for n in range(3):
                while main.state != "waiting":
                    clock.sleep(0)
                os.kill(os.getpid(), signal.SIGUSR1)
                while not handled:
                    clock.sleep(0)
                handled.clear()
                ch.send(n)

        handled = {}
        signal.signal(signal.SIGUSR1, functools.partial(operator.setitem, handled))
        main, ch = current(), Chan()
        thread = threading.Thread(target=send)  # kept: no handler in its finalizer
        thread.start()
        print([ch.recv() for _ in range(3)])
    """)
    assert result == (0, "[0, 1, 2]\n", "")


@pytest.mark.parametrize("beside", ["pass", "go(spin)"])
def test_none_is_lost_while_the_main_thread_falls_asleep(program, beside):
    """Each comes just when goroutine 1 has handled a value and goes to sleep again."""
    result = program(f"""
        import os, signal, threading
        from gofer import *

        handled = 0
        done = False

        def handle(number, frame):
            global handled
            handled += 1

        def spin():
            while not done:
                gosched()

        def send():
            {beside}
            for n in range(300):
                ch.send(n)
                os.kill(os.getpid(), signal.SIGUSR1)
                while handled <= n:
                    os.sched_yield()
            ch.close()

        signal.signal(signal.SIGUSR1, handle)
        ch = Chan()
        thread = threading.Thread(target=send)  # kept: no handler in its finalizer
        thread.start()
        for _ in ch:
            pass
        done = True
        print(handled)
    """)
    assert result == (0, "300\n", "")


def test_handlers_run_in_goroutine_1_also_where_objects_come_back(program):
    """Free-threaded, an idle worker frees what others have dropped of it; no handler runs there."""
    result = program("""
    import os, signal, threading
    from gofer import *

    def handle(*_):
        ran_in.append(current().id)

    def drop_and_signal():
        for box in boxes:
            while main.state != "waiting":
                pass
            os.kill(os.getpid(), signal.SIGUSR1)
            box.clear()
            done.send(None)

    ran_in, done, main = [], Chan(), current()
    signal.signal(signal.SIGUSR1, handle)
    boxes = [[object()] for _ in range(1000)]
    thread = threading.Thread(target=drop_and_signal)  # kept: no handler in its finalizer
    thread.start()
    for _ in boxes:
        done.recv()
    while not ran_in:
        gosched()
    print(set(ran_in))
    """)
    assert result == (0, "{1}\n", "")
