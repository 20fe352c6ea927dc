"""Cancelling a Group, from inside and from outside."""

import threading

import pytest

from gofer import Cancelled, Chan, Goroutine, Group, fork, gosched

from shared.groups import fail_at_the_end, kinds, wait_for_ever

pytestmark = pytest.mark.usefixtures("nothing_left", "not_cancelled")


# --- cancelling ---------------------------------------------------------------------------------


def test_cancel_ends_members_and_is_no_failure():
    with Group() as g:
        tasks = [g.go(wait_for_ever) for _ in range(10)]
        g.cancel()
        g.cancel()
    assert all(task.done for task in tasks)


def test_cancel_ends_the_body():
    log = []
    with Group() as g:
        g.go(wait_for_ever)
        g.cancel()
        log.append("before")
        wait_for_ever()
        log.append("after")
    assert log == ["before"]


def test_cancel_by_a_member():
    with Group() as g:
        g.go(g.cancel)
        g.go(wait_for_ever)
        wait_for_ever()


def test_cancel_from_a_thread(parked):
    with Group() as g:
        task = g.go(wait_for_ever)
        parked(task)
        thread = threading.Thread(target=g.cancel)
        thread.start()
        thread.join()
        wait_for_ever()
    assert task.done


def test_members_started_after_cancel_are_cancelled():
    log = []

    def member():
        log.append("started")
        wait_for_ever()
        log.append("not here")

    with Group() as g:
        g.cancel()
        task = g.go(member)
        quick = g.go(int)
    assert log == ["started"]
    assert task.done
    assert quick.join() == 0


def test_cancelled_members_may_clean_up():
    log, room = [], Chan(1)

    def member():
        try:
            wait_for_ever()
        finally:
            room.send("sent")
            try:
                wait_for_ever()
            finally:
                log.append("through")

    with Group() as g:
        task = g.go(member)
        while task.state != "waiting":
            gosched()
        g.cancel()
    assert log == ["through"]
    assert room.recv() == "sent"


def test_a_failure_while_cancelled_is_raised():
    with pytest.raises(ExceptionGroup) as caught:
        with Group() as g:
            task = g.go(fail_at_the_end)
            while task.state != "waiting":
                gosched()
            g.cancel()
    assert kinds(caught.value) == [ValueError]


def test_after_it_the_body_can_wait_again(parked):
    with Group() as g:
        g.cancel()
        with pytest.raises(Cancelled):
            wait_for_ever()
    gate = Chan()
    task = fork(gate.recv)
    parked(task)
    gate.send(None)
    task.join()


def test_cancel_after_it_changes_nothing():
    with Group() as g:
        pass
    g.cancel()
    gosched()


def test_a_swallowed_cancel_is_no_failure():
    log = []

    def member():
        try:
            wait_for_ever()
        except Cancelled:
            log.append("swallowed")
        return 5

    with Group() as g:
        task = g.go(member)
        while task.state != "waiting":
            gosched()
        g.cancel()
    assert log == ["swallowed"]
    assert task.done


# --- cancelled from outside ---------------------------------------------------------------------


def outer_task(parked, body):
    """Runs body in a task, cancels it once it waits, and returns the task when it has ended."""
    task = fork(body)
    parked(task)
    task.cancel()
    Goroutine.join(task)
    return task


def test_the_edge_observes_an_outer_cancel(parked):
    log = []

    def member():
        try:
            wait_for_ever()
        except Cancelled:
            log.append("member")
            raise

    def body():
        try:
            with Group() as g:
                for _ in range(3):
                    task = g.go(member)
                    while task.state != "waiting":
                        gosched()
        except Cancelled:
            log.append("body")
            raise

    def watch():
        task = fork(body)
        parked(task)
        while task.state != "waiting":
            gosched()
        task.cancel()
        Goroutine.join(task)

    watch()
    assert log[-1] == "body"
    assert log[:-1] == ["member"] * len(log[:-1])


def test_an_outer_cancel_in_the_body_passes(parked):
    log = []

    def body():
        try:
            with Group() as g:
                task = g.go(wait_for_ever)
                try:
                    wait_for_ever()
                finally:
                    log.append(task.done)
        except Cancelled:
            log.append(task.done)
            raise

    task = outer_task(parked, body)
    assert log == [False, True]
    assert task.exception() is not None


def test_an_outer_cancel_passes_nested_groups(parked):
    log = []

    def body():
        try:
            with Group() as outer:
                outer.go(wait_for_ever)
                with Group() as inner:
                    inner.go(wait_for_ever)
                    wait_for_ever()
        except Cancelled:
            log.append("passed")
            raise

    outer_task(parked, body)
    assert log == ["passed"]


def test_it_is_still_cancelled_after_the_group(parked):
    log = []

    def body():
        try:
            with Group() as g:
                g.go(wait_for_ever)
                wait_for_ever()
        except Cancelled:
            pass
        try:
            wait_for_ever()
        except Cancelled:
            log.append("again")
            raise

    outer_task(parked, body)
    assert log == ["again"]


def test_failures_stand_in_place_of_an_outer_cancel(parked):
    log = []

    def body():
        try:
            with Group() as g:
                task = g.go(fail_at_the_end)
                while task.state != "waiting":
                    gosched()
                ready.send(None)
                wait_for_ever()
        except ExceptionGroup as group:
            log.extend(kinds(group))

    ready = Chan()
    task = fork(body)
    ready.recv()
    parked(task)
    task.cancel()
    Goroutine.join(task)
    assert log == [ValueError]
