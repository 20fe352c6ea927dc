"""Ctrl-C and the program's own signal handlers, also when all goroutines are parked."""

import pytest

pytestmark = pytest.mark.usefixtures("nothing_left")


# --- Ctrl-C -------------------------------------------------------------------------------------


INTERRUPTED = """
    import os, signal
    from gofer import *

    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)

    def main():
        {main}

    try:
        run(main)
    except KeyboardInterrupt:
        print("interrupted")
    run(lambda: print(fork(int).join()))
"""


@pytest.mark.parametrize(
    "main",
    [
        "go(interrupt); Chan().recv()",
        "go(interrupt); sleep(1000)",
        "go(interrupt); select()",
        "go(lambda: (interrupt(), Chan().recv())); Chan().recv()",
        "go(interrupt); fork(Chan().recv).join()",
        "go(lambda: (interrupt(), [gosched() for _ in iter(int, 1)])); Chan().recv()",
        "go(interrupt); [gosched() for _ in iter(int, 1)]",
        "interrupt(); [0 for _ in iter(int, 1)]",
        "interrupt(); Chan().recv()",
        "go(lambda: (interrupt(), [0 for _ in iter(int, 1)])); Chan().recv()",
    ],
)
def test_ctrl_c_is_raised_in_goroutine_one(program, main):
    result = program(INTERRUPTED.format(main=main))
    assert result == (0, "interrupted\n0\n", "")


def test_ctrl_c_when_all_are_parked(program):
    result = program("""
        import os, signal, threading
        from gofer import *

        def wait():
            try:
                Chan().recv()
            except BaseException as error:
                print(type(error).__name__)
                raise

        def main():
            waiting = [go(wait) for _ in range(10)]
            while not all(g.state == "waiting" for g in waiting):
                gosched()
            thread = threading.Thread(target=interrupt)  # kept: no handler in its finalizer
            thread.start()
            try:
                Chan().recv()
            except KeyboardInterrupt:
                print("interrupted", current().id)

        def interrupt():
            while main_goroutine.state != "waiting":
                pass
            os.kill(os.getpid(), signal.SIGINT)

        main_goroutine = current()
        run(main)
    """)
    assert result == (0, "interrupted 1\n" + "GoroutineExit\n" * 10, "")


def test_ctrl_c_without_run(program):
    result = program("""
        import os, signal
        from gofer import *

        try:
            go(lambda: os.kill(os.getpid(), signal.SIGINT))
            Chan().recv()
        except KeyboardInterrupt:
            print("interrupted")
    """)
    assert result == (0, "interrupted\n", "")


def test_ctrl_c_uncaught_unwinds_and_kills(program):
    result = program("""
        import os, signal
        from gofer import *

        def wait():
            try:
                Chan().recv()
            finally:
                print("unwound", flush=True)

        def main():
            g = go(wait)
            while g.state != "waiting":
                gosched()
            go(lambda: os.kill(os.getpid(), signal.SIGINT))
            Chan().recv()

        run(main)
    """)
    assert result.status in (-2, 130)
    assert result.out == "unwound\n"
    assert result.err.endswith("KeyboardInterrupt\n")


def test_ctrl_c_again_and_again(program):
    result = program("""
        import os, signal
        from gofer import *

        ch = Chan()
        for n in range(100):
            try:
                go(lambda: os.kill(os.getpid(), signal.SIGINT))
                ch.recv()
            except KeyboardInterrupt:
                continue
            raise AssertionError
        go(ch.send, "value")
        print(ch.recv())
    """)
    assert result == (0, "value\n", "")


def test_a_handler_of_the_program_runs_when_all_are_parked(program):
    result = program("""
        import os, signal, threading
        from gofer import *

        ch = Chan(1)
        signal.signal(signal.SIGUSR1, lambda number, frame: ch.send(number))
        go(lambda: os.kill(os.getpid(), signal.SIGUSR1))
        print(ch.recv() == signal.SIGUSR1)

        class Stop(Exception):
            pass

        def stop(number, frame):
            raise Stop

        def send():
            while main.state != "waiting":
                pass
            os.kill(os.getpid(), signal.SIGUSR1)

        main = current()
        signal.signal(signal.SIGUSR1, stop)
        thread = threading.Thread(target=send)  # kept: no handler in its finalizer
        thread.start()
        try:
            Chan().recv()
        except Stop:
            print("stopped", current().id)
    """)
    assert result == (0, "True\nstopped 1\n", "")


def test_an_ignored_signal_wakes_nobody(program):
    result = program("""
        import os, signal
        from gofer import *

        signal.signal(signal.SIGINT, signal.SIG_IGN)
        ch = Chan()
        go(lambda: (os.kill(os.getpid(), signal.SIGINT), sleep(0), ch.send("value")))
        print(ch.recv())
    """)
    assert result == (0, "value\n", "")
