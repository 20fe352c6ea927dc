"""os.fork: the child has one goroutine and a runtime that works; the parent notices nothing."""

import os

import pytest

from shared.children import text

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def test_the_child_has_a_runtime_that_works(program):
    result = program(
        text("""
        print(works())
        print(child(lambda: print("child", works())))
        print(works())
        """)
    )
    assert result == (0, "True\nchild True\n0\nTrue\n", "")


def test_before_the_first_use(program):
    result = program(
        text("""
        print(child(works))
        print(works())
        """)
    )
    assert result == (0, "0\nTrue\n", "")


def test_only_the_caller_survives(program):
    result = program(
        text("""
        gate, gs = parked(50)
        def look():
            print(runtime.num_goroutine(), [info.id for info in runtime.goroutines()])
            print(all(g.done for g in gs), works())
        print(child(look))
        print(runtime.num_goroutine(), all(g.state == "waiting" for g in gs))
        gate.close()
        for g in gs:
            g.join()
        print(works())
        """)
    )
    assert result == (0, "1 [1]\nTrue True\n0\n51 True\nTrue\n", "")


def test_the_child_may_use_channels_of_before(program):
    result = program(
        text("""
        buffered, gate = Chan(5), Chan()
        for n in range(5):
            buffered.send(n)
        waiting = go(gate.recv)
        while waiting.state != "waiting":
            gosched()
        def use():
            print([buffered.recv() for _ in range(5)])
            go(gate.send, "from a goroutine of the child")
            print(gate.recv())
            gate.close()
        print(child(use))
        print([buffered.recv() for _ in range(5)])
        gate.send(None)
        waiting.join()
        """)
    )
    out = "[0, 1, 2, 3, 4]\nfrom a goroutine of the child\n0\n[0, 1, 2, 3, 4]\n"
    assert result == (0, out, "")


def test_fork_in_another_goroutine(program):
    result = program(
        text("""
        gate, gs = parked(10)
        def body():
            kept = ["local"]
            status = child(lambda: print(runtime.num_goroutine(), kept, works()))
            return status, kept
        task = fork(body)
        print(task.join())
        print(sorted([3, 1, 2], key=lambda n: (fork(body).join(), n)[1]))
        gate.close()
        for g in gs:
            g.join()
        print(works())
        """)
    )
    line = "1 ['local'] True\n"
    assert result == (0, line + "(0, ['local'])\n" + line * 3 + "[1, 2, 3]\nTrue\n", "")


def test_the_child_goes_on_to_its_end(program):
    """The child of a fork in a goroutine leaves the function of the goroutine, and ends."""
    result = program(
        text("""
        def body():
            sys.stdout.flush()
            pid = os.fork()
            if pid:
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            print("child", flush=True)
            return 0
        print("parent", fork(body).join())
        """)
    )
    assert result.status == 0
    assert result.out.startswith("child\n")
    assert result.out.endswith("parent 0\n")
    assert result.err == ""


def test_system_exit_in_the_child_of_a_goroutine(program):
    result = program(
        text("""
        def body():
            pid = os.fork()
            if pid:
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            sys.exit(7)
        print("parent", fork(body).join())
        """)
    )
    assert result == (0, "parent 7\n", "")


def test_a_panic_in_the_child_of_a_goroutine(program):
    result = program(
        text("""
        def body():
            pid = os.fork()
            if pid:
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            raise ValueError("in the child")
        seen = Chan()
        go(lambda: seen.send(body()))
        print("parent", seen.recv())
        """)
    )
    assert (result.status, result.out) == (0, "parent 2\n") or result.out == "parent 1\n"
    assert "ValueError: in the child" in result.err


def test_deadlock_in_the_child(program):
    result = program(
        text("""
        gate, gs = parked(3)
        def stuck():
            try:
                gate.recv()
            except Deadlock as error:
                print("deadlock", len(error.__notes__))
        print(child(stuck))
        """)
    )
    assert result == (0, "deadlock 1\n0\n", "")


def test_timers_in_the_child(program):
    result = program(
        text("""
        gs = [go(sleep, 1000) for _ in range(10)]
        late = after(0.05)
        while not all(g.state == "waiting" for g in gs):
            gosched()
        def use():
            late.recv()
            sleep(0.001)
            print("child")
        print(child(use))
        late.recv()
        print("parent")
        """)
    )
    assert result == (0, "child\n0\nparent\n", "")


def test_ctrl_c_in_the_child(program):
    result = program(
        text("""
        import signal
        gate, gs = parked(3)
        def use():
            try:
                go(lambda: os.kill(os.getpid(), signal.SIGINT))
                Chan().recv()
            except KeyboardInterrupt:
                print("interrupted")
        print(child(use))
        """)
    )
    assert result == (0, "interrupted\n0\n", "")


def test_fork_inside_run(program):
    result = program(
        text("""
        log = []
        def body():
            try:
                Chan().recv()
            finally:
                log.append("unwound")
        def main():
            g = go(body)
            while g.state != "waiting":
                gosched()
            return child(lambda: print("child", works(), log))
        print(run(main), log)
        """)
    )
    assert result == (0, "child True []\n0 ['unwound']\n", "")


def test_grandchildren(program):
    result = program(
        text("""
        def down(n):
            parked(3)
            works()
            if n:
                print(n, child(lambda: down(n - 1)))
        down(4)
        """)
    )
    assert result == (0, "1 0\n2 0\n3 0\n4 0\n", "")


def test_many_children_at_once(program):
    result = program(
        text("""
        gate, gs = parked(100)
        pids = []
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                works()
                os._exit(3)
            pids.append(pid)
        print({os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids})
        print(works())
        """)
    )
    assert result == (0, "{3}\nTrue\n", "")


def test_fork_in_a_thread(program):
    result = program(
        text("""
        gate, gs = parked(5)
        def body():
            fork(int).join()
            status.append(child(lambda: print(runtime.num_goroutine() <= 1, works())))
        status = []
        in_thread(body)
        print(status, works())
        """)
    )
    assert result == (0, "True True\n[0] True\n", "")


def test_fork_while_others_work(program):
    result = program(
        text("""
        stop = []
        def churn():
            ch = Chan()
            while not stop:
                go(ch.send, 1)
                ch.recv()
        gs = [go(churn) for _ in range(8)]
        statuses = set()
        for _ in range(10):
            gosched()
            statuses.add(child(works))
        stop.append(1)
        for g in gs:
            g.join()
        print(statuses, works())
        """)
    )
    assert result == (0, "{0} True\n", "")


def test_multiprocessing(program):
    result = program(
        text("""
        import multiprocessing
        if __name__ == "__main__":
            context = multiprocessing.get_context("fork")
            gate, gs = parked(10)
            process = context.Process(target=works)
            process.start()
            process.join()
            print(process.exitcode)
            with context.Pool(2) as pool:
                print(pool.map(abs, range(-5, 0)))
            print(works())
        """)
    )
    assert result == (0, "0\n[5, 4, 3, 2, 1]\nTrue\n", "")


def test_subprocesses(program):
    result = program(
        text("""
        import subprocess
        gate, gs = parked(10)
        def body(n):
            command = [sys.executable, "-c", f"print({n})"]
            return subprocess.run(command, capture_output=True, text=True).stdout
        print([fork(body, n).join() for n in range(2)])
        """)
    )
    assert result == (0, "['0\\n', '1\\n']\n", "")
