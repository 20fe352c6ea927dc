"""os.fork: the child has one goroutine and a runtime that works; the parent notices nothing."""

import os

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

PRELUDE = """
from gofer import *
import os, sys, threading, time, warnings

warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns when there are threads

def child(fn):
    '''Runs fn in a child; what it printed is printed here, and its exit status returned.'''
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            fn()
            sys.stdout.flush()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def works():
    '''A bit of everything.'''
    ch, total = Chan(), WaitGroup()
    for n in range(100):
        total.go(ch.send, n)
    assert sum(ch.recv() for _ in range(100)) == 4950
    total.wait()
    with Group(limit=3) as g:
        tasks = [g.go(pow, n, 2) for n in range(20)]
    assert [task.join() for task in tasks] == [n * n for n in range(20)]
    sleep(0.001)
    after(0.001).recv()
    assert run(lambda: fork(current).join().id) > 1
    thread = threading.Thread(target=lambda: fork(int).join())
    thread.start()
    while thread.is_alive():
        gosched()
    return True

def parked(n):
    gate = Chan()
    gs = [go(gate.recv_ok) for _ in range(n)]
    while not all(g.state == "waiting" for g in gs):
        gosched()
    return gate, gs
"""


def text(body):
    lines = body.strip("\n").splitlines()
    cut = len(lines[0]) - len(lines[0].lstrip())
    return PRELUDE + "\n".join(line[cut:] for line in lines)


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
        thread = threading.Thread(target=body)
        thread.start()
        while thread.is_alive():
            gosched()
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


# --- inside scopes ------------------------------------------------------------------------------


def test_a_child_inside_scopes(program):
    """It is in the scopes of its goroutine; those of the lost ones are nobody's any more."""
    result = program(
        text("""
        def others(n):
            with timeout(1000), cancel_scope():
                gs = [go(Chan().recv) for _ in range(n)]
                while not all(g.state == "waiting" for g in gs):
                    gosched()
                ready.send(gs)
                Chan().recv()
        ready = Chan()
        with cancel_scope() as around:
            lost = [go(others, 5) for _ in range(5)]
            for _ in lost:
                ready.recv()
            with cancel_scope() as outer:
                with timeout(1000):
                    def use():
                        print(works())
                        try:
                            with timeout(0.001):
                                Chan().recv()
                        except TimeoutError as error:
                            print(error)
                        outer.cancel()
                        try:
                            Chan().recv()
                        finally:
                            print("through", flush=True)
                            os._exit(5)
                    print(child(use))
                    print(outer.cancelled)
            around.cancel()
        for g in lost:
            g.join()
        print(works())
        """)
    )
    lines = ["True", "timeout(0.001) expired", "through", "5", "False", "True"]
    assert result == (0, "".join(line + "\n" for line in lines), "")


def test_the_deadline_of_before_holds_in_the_child(program):
    result = program(
        text("""
        def body():
            try:
                with timeout(0.05):
                    pid = os.fork()
                    Chan().recv()
            except TimeoutError:
                if pid == 0:
                    os._exit(3)
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        go(Chan().recv)
        print(body(), fork(body).join())
        """)
    )
    assert result == (0, "3 3\n", "")


def test_a_task_of_a_group_in_the_child(program):
    result = program(
        text("""
        def member():
            status = child(lambda: print(works()))
            with cancel_scope() as scope:
                scope.cancel()
                Chan().recv()
            return status
        with Group() as g:
            g.go(sleep, 0.01)
            task = g.go(member)
        print(task.join())
        """)
    )
    assert result == (0, "True\n0\n", "")


def test_fork_in_a_thread_inside_a_scope(program):
    result = program(
        text("""
        def body():
            with timeout(1000), cancel_scope() as scope:
                status.append(child(lambda: print(works())))
                scope.cancel()
                Chan().recv()
            status.append("left")
        status = []
        thread = threading.Thread(target=body)
        thread.start()
        while thread.is_alive():
            gosched()
        print(status, works())
        """)
    )
    assert result == (0, "True\n[0, 'left'] True\n", "")


def test_fork_while_scopes_come_and_go(program):
    """Of other workers and of threads; the child drops what they were in."""
    result = program(
        text("""
        stop = []
        def churn():
            while not stop:
                with cancel_scope() as scope, timeout(1000):
                    gs = [go(Chan().recv) for _ in range(3)]
                    scope.cancel()
                    for g in gs:
                        with shield():
                            g.join()
        gs = [go(churn) for _ in range(6)]
        threads = [threading.Thread(target=churn) for _ in range(2)]
        for thread in threads:
            thread.start()
        statuses = set()
        for _ in range(10):
            gosched()
            with timeout(1000):
                statuses.add(child(works))
        stop.append(1)
        for g in gs:
            g.join()
        while any(thread.is_alive() for thread in threads):
            gosched()
        print(statuses)
        """)
    )
    assert result == (0, "{0}\n", "")


def test_fork_in_a_bubble(program):
    """The child has the clock, and none of the others: time passes for it alone."""
    result = program(
        text("""
        from gofer.testing import bubble, wait
        from gofer.time import now

        def lives():
            start = now()
            sleep(3600)
            try:
                with timeout(5):
                    Chan().recv()
            except TimeoutError:
                pass
            with Group() as g:
                g.go(sleep, 10)
            wait()
            print(now() - start)

        with bubble():
            start = now()
            others = [go(sleep, 100) for _ in range(5)] + [go(Chan().recv) for _ in range(5)]
            wait()
            print(child(lives), now() - start)
            member = fork(child, lives)
            print(member.join(), now() - start)
            try:
                Chan().recv()
            except Deadlock:
                print("in the parent", now() - start)
            raise SystemExit
        """)
    )
    assert result == (0, "3615.0\n0 0.0\n3615.0\n0 0.0\nin the parent 100.0\n", "")


# --- a child that goes on where it was ---------------------------------------------------------------

LEAVES = """
    def body():
        '''Forks in two scopes; both processes leave them, each by itself.'''
        with cancel_scope() as outer:
            try:
                with timeout(0.02) as limit:
                    with shield():
                        pid = os.fork()
                    Chan().recv()
            except TimeoutError:
                pass
            with timeout(1000):
                sleep(0.001)
            with Group() as g:
                g.go(sleep, 0.001)
            go(outer.cancel)
            Chan().recv()
        sleep(0.001)
        if pid == 0:
            print(limit.expired, outer.cancelled, works(), flush=True)
            os._exit(3)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(limit.expired, outer.cancelled, status, flush=True)

    def in_thread():
        thread = threading.Thread(target=body)
        thread.start()
        while thread.is_alive():
            gosched()
"""


@pytest.mark.parametrize(
    "how", ["body()", "fork(body).join()", "run(body)", "in_thread()", "blocking(body)"]
)
def test_both_processes_leave_the_scopes(program, how):
    result = program(text(LEAVES) + "\nparked(10)\n" + how)
    assert result == (0, "True True True\nTrue True 3\n", "")


def test_a_thread_that_has_forked_waits_for_what_was_made_before(program):
    """Timers of goroutines that are lost, contexts and channels."""
    result = program(
        text("""
        from gofer import context

        def body():
            with timeout(1000):
                pid = os.fork()
                if pid:
                    cancel_below()
                    statuses.send(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                    return
                print(late.recv() > 0, timed.done.recv_ok(), type(timed.err()).__name__)
                print(below.err(), cancel_below(), below.done.recv_ok())
                called.recv()
                print(works(), current().id, flush=True)
            os._exit(4)

        late, called, statuses = after(0.02), Chan(), Chan(1)
        timed, _ = context.with_timeout(context.background(), 0.02)
        below, cancel_below = context.with_cancel(context.with_timeout(context.todo(), 1000)[0])
        context.after_func(timed, lambda: called.send(1))
        lost = go(below.done.recv_ok)
        thread = threading.Thread(target=body)
        thread.start()
        print(statuses.recv())
        lost.join()
        """)
    )
    lines = [
        "True (None, False) DeadlineExceeded",
        "None None (None, False)",
        "True 1",
        "4",
    ]
    assert result == (0, "".join(line + "\n" for line in lines), "")


def test_a_thread_that_forks_in_a_bubble(program):
    result = program(
        text("""
        from gofer.testing import bubble
        from gofer.time import now

        def body():
            with bubble():
                start = now()
                with timeout(3600) as limit:
                    pid = os.fork()
                    sleep(1800)
                sleep(1800)
                took = now() - start
            if pid == 0:
                print(took, limit.expired, works(), flush=True)
                os._exit(5)
            print(took, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

        thread = threading.Thread(target=body)
        thread.start()
        while thread.is_alive():
            gosched()
        """)
    )
    assert result == (0, "3600.0 False True\n3600.0 5\n", "")
