"""`gofer.aio` in programs of their own: deadlock, Ctrl-C, the end, forks, uvloop."""

import pytest

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_who_awaits_is_no_deadlock_and_who_has_awaited_is_one(program):
    result = program("""
        import asyncio
        from gofer import *
        from gofer import aio

        print(aio.await_(asyncio.sleep(0.1, "slept")))
        try:
            Chan().recv()
        except Deadlock:
            print("deadlock")
    """)
    assert result == (0, "slept\ndeadlock\n", "")


def test_a_task_that_nobody_awaits_may_wake_somebody(program):
    result = program("""
        import asyncio
        from gofer import *
        from gofer import aio

        async def later():
            await asyncio.sleep(0.1)
            await aio.send(ch, "later")

        async def start():
            tasks.append(asyncio.create_task(later()))

        ch, tasks = Chan(), []
        aio.await_(start())
        print(ch.recv())
        try:
            ch.recv()
        except Deadlock:
            print("deadlock")
    """)
    assert result == (0, "later\ndeadlock\n", "")


def test_ctrl_c_in_who_awaits(program):
    result = program("""
        import asyncio, os, signal
        from gofer import aio

        async def interrupt():
            os.kill(os.getpid(), signal.SIGINT)
            try:
                await asyncio.sleep(1000)
            finally:
                print("cancelled", flush=True)
                ended.set()

        import threading
        ended = threading.Event()
        try:
            aio.await_(interrupt())
        except KeyboardInterrupt:
            ended.wait()
            print("interrupted")
        print(aio.await_(asyncio.sleep(0, "works")))
    """)
    assert result == (0, "cancelled\ninterrupted\nworks\n", "")


@pytest.mark.parametrize("told", [False, True])
def test_ctrl_c_when_the_loop_is_told(program, told):
    """The coroutine is cancelled if it has begun, and else never begins."""
    result = program(f"""
        import asyncio, threading
        from gofer import aio

        async def wait():
            print("begun")
            begun.set()
            try:
                await asyncio.sleep(1000)
            except BaseException as error:
                print(type(error).__name__)
                ended.set()
                raise

        def interrupted(*args, **kwargs):
            loop.call_soon_threadsafe = tell
            if {told}:
                tell(*args, **kwargs)
                begun.wait()
            raise KeyboardInterrupt

        begun, ended = threading.Event(), threading.Event()
        aio.await_(asyncio.sleep(0))
        loop = aio._own.loop
        tell = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = interrupted
        try:
            aio.await_(wait())
        except KeyboardInterrupt:
            if {told}:
                ended.wait()
            print("interrupted")
        print(aio.await_(asyncio.sleep(0, "works")))
    """)
    before = "begun\nCancelledError\n" if told else ""
    assert result == (0, before + "interrupted\nworks\n", "")


def test_ctrl_c_in_who_runs_a_loop(program):
    """asyncio.run cancels its main task, and that the goroutine."""
    result = program("""
        import asyncio, os, signal
        from gofer import *
        from gofer import aio

        def wait(loop):
            os.kill(os.getpid(), signal.SIGINT)
            loop.call_soon_threadsafe(int)  # one just before the loop sleeps goes unnoticed
            try:
                Chan().recv()
            finally:
                print("cancelled")

        async def main():
            await aio.go(wait, asyncio.get_running_loop())

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print("interrupted")
    """)
    assert result == (0, "cancelled\ninterrupted\n", "")


@pytest.mark.parametrize("error", ["SystemExit(3)", "KeyboardInterrupt()"])
def test_the_end_of_the_program_by_a_coroutine(program, error):
    result = program(f"""
        from gofer import aio

        async def fail():
            raise {error}

        aio.await_(fail())
    """)
    assert result.status == (3 if "3" in error else -2) or result.status == 130
    assert result.out == ""


def test_at_exit_the_tasks_are_cancelled(program):
    result = program("""
        import asyncio
        from gofer import *
        from gofer import aio

        async def wait():
            try:
                await asyncio.sleep(1000)
            finally:
                print("cancelled")

        async def start():
            tasks.append(asyncio.create_task(wait()))
            await asyncio.sleep(0)

        tasks = []
        aio.await_(start())
        go(lambda: aio.await_(asyncio.sleep(1000)))
        gosched()
        print("end", flush=True)
    """)
    assert result == (0, "end\ncancelled\n", "")


def test_the_end_of_run(program):
    result = program("""
        import asyncio
        from gofer import *
        from gofer import aio

        async def wait():
            try:
                started.send(None)
                await asyncio.sleep(1000)
            finally:
                ended.send(None)

        def call():
            try:
                aio.await_(wait())
            finally:
                print("unwound")

        def main():
            go(call)
            started.recv()

        started, ended = Chan(1), Chan(1)
        run(main)
        ended.recv()
        print(run(lambda: aio.await_(asyncio.sleep(0, "again"))))
    """)
    assert result == (0, "unwound\nagain\n", "")


def test_the_end_of_run_ends_what_works_for_coroutines(program):
    """They hear of it, also if it had not begun."""
    result = program("""
        import asyncio
        from gofer import *
        from gofer import aio
        from gofer.errors import Canceled

        async def receive():
            try:
                await aio.recv(Chan())
            except Canceled:
                ended.send(None)

        async def start():
            for _ in range(20):
                tasks.append(asyncio.create_task(receive()))
            await asyncio.sleep(0)

        tasks, ended = [], Chan(20)
        run(lambda: aio.await_(start()))
        for _ in range(20):
            ended.recv()
        print("all")
    """)
    assert result == (0, "all\n", "")


def test_a_child_of_a_fork_has_a_loop_of_its_own(program):
    result = program("""
        import asyncio, os, warnings
        from gofer import *
        from gofer import aio

        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns when there are threads
        print(aio.await_(asyncio.sleep(0, "before")), flush=True)
        waits = fork(lambda: aio.await_(asyncio.sleep(0.2, "parent")))
        gosched()
        pid = os.fork()
        if pid == 0:
            print(aio.await_(asyncio.sleep(0, "child")), flush=True)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        print(waits.join())
        print(aio.await_(asyncio.sleep(0, "after")))
    """)
    assert result == (0, "before\nchild\n0\nparent\nafter\n", "")


def test_importing_it_starts_nothing(program):
    result = program("""
        import threading
        from gofer import aio
        print(threading.active_count())
    """)
    assert result == (0, "1\n", "")


def test_the_loop_is_uvloops_if_there_is_one(program, tmp_path):
    (tmp_path / "uvloop.py").write_text(
        "import asyncio\nclass Loop(asyncio.SelectorEventLoop): pass\nnew_event_loop = Loop\n"
    )
    result = program("""
        import asyncio
        from gofer import aio

        async def name():
            return type(asyncio.get_running_loop()).__module__

        print(aio.await_(name()))
    """)
    assert result == (0, "uvloop\n", "")
