"""os.fork inside scopes and bubbles, and a child that goes on where it was."""

import os

import pytest

from shared.children import text

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


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
        in_thread(body)
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


# --- a child that goes on where it was ----------------------------------------------------------

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
"""


@pytest.mark.parametrize(
    "how", ["body()", "fork(body).join()", "run(body)", "in_thread(body)", "blocking(body)"]
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

        late, called, statuses = after(0.02), Chan(1), Chan(1)
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

        in_thread(body)
        """)
    )
    assert result == (0, "3600.0 False True\n3600.0 5\n", "")
