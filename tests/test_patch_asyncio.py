"""Event loops of asyncio in goroutines: each has its own, and waits in its goroutine only."""

import asyncio
import gc
import socket
import subprocess
import sys
import threading
import time

import pytest

from gofer import Chan, Group, aio, cancel_scope, context, fork, go, gosched, timeout

from shared.canary import beats_under

pytestmark = pytest.mark.usefixtures("nothing_left", "cooperative", "not_cancelled")

MANY = 30


def no_loop_here():
    assert asyncio._get_running_loop() is None
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()
    return True


async def forever():
    await asyncio.get_running_loop().create_future()


# --- which loop runs ------------------------------------------------------------------------------


async def stays_itself(n):
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    for turn in range(10):
        await asyncio.sleep(0.0001 * (n % 3))
        assert asyncio.current_task() is task
        if turn % 2:
            time.sleep(0.0001)  # parks in the middle of a step
        gosched()
        assert asyncio.get_running_loop() is loop
        assert asyncio.current_task() is task
        assert asyncio.all_tasks() == {task}
    return n


def test_many_at_once():
    with Group() as g:
        tasks = [g.go(asyncio.run, stays_itself(n)) for n in range(MANY)]
    assert [task.join() for task in tasks] == list(range(MANY))
    no_loop_here()


def test_many_tasks_in_each():
    async def main(n):
        return sum(await asyncio.gather(*(double(n + i) for i in range(10))))

    async def double(n):
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)
        time.sleep(0)
        assert asyncio.get_running_loop() is loop
        return 2 * n

    with Group() as g:
        tasks = [g.go(asyncio.run, main(n)) for n in range(MANY)]
    assert [task.join() for task in tasks] == [20 * n + 90 for n in range(MANY)]


def test_others_see_no_loop(one_worker):
    async def main():
        return fork(no_loop_here)

    async def waits():
        seen = await main()
        await asyncio.to_thread(seen.join)

    asyncio.run(waits())
    assert fork(no_loop_here).join()


def test_a_goroutine_that_has_ended_leaves_none(one_worker):
    """The interpreter remembers the last loop it was asked for by the number of a thread state."""
    for _ in range(50):
        fork(asyncio.run, stays_itself(0)).join()
        gc.collect()
        assert fork(no_loop_here).join()
        no_loop_here()


def test_one_left_running_in_a_goroutine_is_gone_with_it(one_worker):
    loop = asyncio.new_event_loop()
    for _ in range(20):
        fork(asyncio._set_running_loop, loop).join()
        assert fork(no_loop_here).join()
        no_loop_here()
    loop.close()
    gc.collect()


def test_a_second_one_in_a_coroutine_is_refused():
    async def main():
        again = forever()
        with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
            asyncio.run(again)
        again.close()

    fork(asyncio.run, main()).join()


def test_event_loops_by_hand():
    def serve(n):
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        assert asyncio.get_event_loop() is loop
        try:
            return loop.run_until_complete(stays_itself(n))
        finally:
            assert asyncio.get_event_loop() is loop
            loop.close()

    with Group() as g:
        tasks = [g.go(serve, n) for n in range(MANY)]
    assert [task.join() for task in tasks] == list(range(MANY))


def test_in_debug_mode():
    """Which coroutines remember where they were made is set for the thread, too."""

    async def main(n):
        for _ in range(5):
            await asyncio.sleep(0)
            gosched()
            assert sys.get_coroutine_origin_tracking_depth() > 0
        return n

    with Group() as g:
        tasks = [g.go(asyncio.run, main(n), debug=True) for n in range(5)]
        for _ in range(20):
            gosched()
            assert sys.get_coroutine_origin_tracking_depth() == 0
    assert [task.join() for task in tasks] == list(range(5))


def test_asynchronous_generators_belong_to_their_loop():
    ended = []

    async def numbers(loop):
        try:
            while True:
                yield loop
        finally:
            ended.append(loop is asyncio.get_running_loop())
            await asyncio.sleep(0)

    async def main():
        loop = asyncio.get_running_loop()
        left_open = numbers(loop)
        async for whose in numbers(loop):
            await asyncio.sleep(0.0001)
            gosched()
            assert whose is loop
            break
        gc.collect()
        await asyncio.sleep(0)
        async for _ in left_open:
            gosched()
            break

    with Group() as g:
        for _ in range(MANY):
            g.go(asyncio.run, main())
    assert ended == [True] * 2 * MANY
    assert sys.get_asyncgen_hooks() == (None, None)


# --- what it waits for --------------------------------------------------------------------------


def test_the_goroutine_waits_and_not_its_worker(one_worker):
    bell = Chan(1)

    async def main():
        got = loop.create_future()
        loop.add_reader(ready, lambda: got.done() or got.set_result(ready.recv(10)))
        bell.send(None)
        return await got

    ready, tell = socket.socketpair()
    ready.setblocking(False)
    loop = asyncio.new_event_loop()
    with ready, tell:
        outcome = beats_under(lambda: loop.run_until_complete(main()), lambda: tell.send(b"hello"))
    loop.close()
    assert outcome == b"hello"


def test_server_and_clients_in_goroutines_of_one_worker(one_worker):
    async def serve():
        async def echo(reader, writer):
            while line := await reader.readline():
                writer.write(line.upper())
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        stop = asyncio.Event()
        address.send((server.sockets[0].getsockname(), asyncio.get_running_loop(), stop))
        async with server:
            await stop.wait()

    async def ask(where, n):
        reader, writer = await asyncio.open_connection(*where)
        for turn in range(5):
            writer.write(b"from %d, %d\n" % (n, turn))
            assert await reader.readline() == b"FROM %d, %d\n" % (n, turn)
        writer.close()
        await writer.wait_closed()

    def ask_plainly(where, n):
        with socket.create_connection(where) as sock, sock.makefile("rb") as lines:
            for turn in range(5):
                sock.sendall(b"plain %d, %d\n" % (n, turn))
                assert lines.readline() == b"PLAIN %d, %d\n" % (n, turn)

    address = Chan(1)
    with Group() as g:
        g.go(asyncio.run, serve())
        where, loop, stop = address.recv()
        with Group() as clients:
            for n in range(MANY):
                clients.go(asyncio.run, ask(where, n))
                clients.go(ask_plainly, where, n)
        loop.call_soon_threadsafe(stop.set)


def test_from_another_goroutine(one_worker):
    async def main():
        loop, future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        out.send((loop, future))
        return await future

    out = Chan(1)
    task = fork(asyncio.run, main())
    loop, future = out.recv()
    loop.call_soon_threadsafe(future.set_result, 7)
    assert task.join() == 7


def test_threads_and_child_processes():
    async def main(n):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", f"print({n})", stdout=subprocess.PIPE
        )
        in_thread = await asyncio.to_thread(threading.current_thread)
        assert in_thread is not threading.current_thread()
        out, _ = await process.communicate()
        return int(out)

    with Group() as g:
        tasks = [g.go(asyncio.run, main(n)) for n in range(3)]
    assert [task.join() for task in tasks] == [0, 1, 2]


def test_coroutines_that_wait_for_goroutines(one_worker):
    def square(n):
        time.sleep(0.0001)
        return n * n

    async def main(n):
        return await asyncio.gather(*(aio.go(square, n + i) for i in range(3)))

    with Group() as g:
        tasks = [g.go(asyncio.run, main(n)) for n in range(5)]
    assert [task.join() for task in tasks] == [[(n + i) ** 2 for i in range(3)] for n in range(5)]


def test_await_in_a_goroutine_beside_one_that_runs_a_loop(one_worker):
    async def answer():
        await asyncio.sleep(0)
        return 42

    with cancel_scope() as scope:
        begun = Chan(1)

        async def main():
            begun.send(None)
            await forever()

        go(lambda: asyncio.run(main()))
        begun.recv()
        assert aio.await_(answer()) == 42
        scope.cancel()


# --- its end ------------------------------------------------------------------------------------


def test_cancelled_it_lets_its_tasks_clean_up(one_worker):
    seen = []

    async def job():
        try:
            await forever()
        except asyncio.CancelledError:
            await asyncio.sleep(0.001)  # in a cancelled scope, and done all the same
            seen.append("job")
            raise

    async def main():
        jobs = [asyncio.create_task(job()) for _ in range(3)]
        await asyncio.sleep(0)
        begun.send(None)
        try:
            await asyncio.gather(*jobs)
        finally:
            await asyncio.to_thread(seen.append, "main")

    begun = Chan(1)
    with cancel_scope() as scope:
        task = fork(asyncio.run, main())
        begun.recv()
        scope.cancel()
    assert isinstance(task.exception(), context.Canceled)
    assert sorted(seen) == ["job", "job", "job", "main"]
    no_loop_here()


def test_timeout_around_it():
    with pytest.raises(TimeoutError, match="timeout"):
        with timeout(0.01):
            asyncio.run(forever())
    no_loop_here()


def test_many_are_cancelled_at_any_moment(rng):
    async def main(n):
        try:
            return await stays_itself(n)
        finally:
            await asyncio.sleep(0)
            cleaned.append(n)

    cleaned = []
    begun = []

    def run(n):
        begun.append(n)
        asyncio.run(main(n))

    for _ in range(10):
        with cancel_scope() as scope:
            tasks = [fork(run, n) for n in range(10)]
            for _ in range(rng.randrange(200)):
                gosched()
            scope.cancel()
        for task in tasks:
            assert isinstance(task.exception(), (type(None), context.Canceled))
    assert set(cleaned) <= set(begun)
    no_loop_here()


INTERRUPT = """
    import asyncio, os, signal, time
    from gofer import go, patch, run, sleep

    patch()
    interrupts = []

    def interrupt():
        sleep(0.02)
        interrupts.append(1)
        os.kill(os.getpid(), signal.SIGINT)

"""


# In debug mode a loop minds who calls it, and says so when something takes long.
DEBUG = pytest.mark.parametrize("debug", [False, True])


@DEBUG
@pytest.mark.parametrize("how", ["main()", "run(main)"])
def test_the_first_interrupt_cancels_the_main_task(program, how, debug):
    result = program(f"""{INTERRUPT}
    async def job():
        go(interrupt)
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            print("cancelled", asyncio.current_task().cancelling())
            await asyncio.sleep(0.01)
            print("cleaned up")
            raise

    def main():
        before = signal.getsignal(signal.SIGINT)
        try:
            asyncio.run(job(), debug={debug})
        except KeyboardInterrupt:
            print("interrupted", signal.getsignal(signal.SIGINT) is before)

    go(int).join()
    {how}
    """)
    assert result[:2] == (0, "cancelled 1\ncleaned up\ninterrupted True\n")
    assert debug or not result.err


@DEBUG
def test_the_second_interrupt_is_for_goroutine_1(program, debug):
    """Whichever goroutine runs when it comes."""
    result = program(f"""{INTERRUPT}
    def busy():
        while len(interrupts) < 3:
            time.sleep(0)

    async def job():
        go(busy)
        go(interrupt)
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            go(interrupt)
            await asyncio.sleep(1000)

    try:
        asyncio.run(job(), debug={debug})
    except KeyboardInterrupt:
        print("interrupted", len(interrupts))
    """)
    assert result[:2] == (0, "interrupted 2\n")
    assert debug or not result.err


def test_interrupts_are_taken_over_all_the_same(program):
    """The first use of gofer is in a coroutine, when asyncio handles them."""
    result = program("""
        import asyncio, signal
        from gofer import fork, patch

        patch()

        async def main():
            return fork(int)

        asyncio.run(main()).join()
        handler = signal.getsignal(signal.SIGINT)
        asyncio.run(main()).join()
        print(handler is signal.getsignal(signal.SIGINT) is not signal.default_int_handler)
    """)
    assert result == (0, "True\n", "")


def test_imported_after_patch(program):
    result = program("""
        import sys
        from gofer import cancel_scope, fork, patch, unpatch

        patch()
        assert "asyncio" not in sys.modules
        import asyncio

        assert asyncio.runners.__loader__.name == "asyncio.runners"

        async def main():
            try:
                scope.cancel()
                await asyncio.sleep(1000)
            finally:
                await asyncio.sleep(0.001)
                print("cleaned up")

        with cancel_scope() as scope:
            asyncio.run(main())
        patched = asyncio.Runner.close
        unpatch()
        assert asyncio.Runner.close is not patched
        print(asyncio.Runner.close.__module__, len(sys.meta_path))
    """)
    assert result.status == 0
    out, where = result.out.splitlines()
    assert out == "cleaned up"
    assert where.startswith("asyncio.runners ")


# --- uvloop -------------------------------------------------------------------------------------


@pytest.fixture
def uvloop():
    return pytest.importorskip("uvloop")


def run_on_uvloop(uvloop, coroutine):
    loop = uvloop.new_event_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()


def test_uvloop_blocks_its_worker(uvloop):
    async def main(n):
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.0001)
        assert asyncio.get_running_loop() is loop
        return n

    with Group() as g:
        tasks = [g.go(run_on_uvloop, uvloop, main(n)) for n in range(5)]
    assert [task.join() for task in tasks] == list(range(5))
    no_loop_here()


def test_a_second_uvloop_in_a_thread_is_refused(uvloop, one_worker):
    """One that has parked in a coroutine is in the middle of its work."""

    async def main():
        begun.send(None)
        go_on.recv()
        return asyncio.get_running_loop()

    begun, go_on = Chan(1), Chan()
    first = fork(run_on_uvloop, uvloop, main())
    begun.recv()
    second = stays_itself(0)
    with pytest.raises(RuntimeError, match="uvloop runs on this thread already"):
        run_on_uvloop(uvloop, second)
    second.close()
    go_on.send(None)
    assert isinstance(first.join(), uvloop.Loop)
