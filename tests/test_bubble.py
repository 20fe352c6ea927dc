"""gofer.testing.bubble: its clock, and `wait`.

What lives by the clock is in test_bubble_time.py, what lets it move in test_bubble_durable.py, and
how bubbles end in test_bubble_ends.py. Many cases are those of Go's internal/synctest.
"""

import math
from datetime import timedelta

import pytest

from gofer import (
    Chan,
    Group,
    WaitGroup,
    after,
    after_func,
    cancel_scope,
    fork,
    go,
    gosched,
    sleep,
    timeout,
)
from gofer.errors import Cancelled
from gofer.sync import atomic
from gofer.testing import bubble, wait
from gofer.time import now

from shared import in_thread, is_empty
from shared.bubbles import HOUR, release_from_outside

pytestmark = pytest.mark.usefixtures("nothing_left")


# --- the clock ----------------------------------------------------------------------------------


def test_it_starts_at_a_full_second_that_has_not_come_yet():
    before = now()
    with bubble():
        assert before < now() <= before + 10
        assert now() % 1 == 0
    assert now() < before + 10


def test_time_passes_in_sleep_only(elapsed):
    with bubble():
        assert elapsed() == 0
        for _ in range(100):
            gosched()
        assert elapsed() == 0
        sleep(HOUR)
        assert elapsed() == HOUR
        sleep(timedelta(days=365))
        assert elapsed() == HOUR + 365 * 24 * HOUR
        sleep(0)
        sleep(-1)
        assert elapsed() == HOUR + 365 * 24 * HOUR


def test_all_goroutines_live_by_one_clock():
    with bubble():
        start = now()

        def child():
            assert now() == start
            sleep(1)
            assert now() == start + 1
            fork(grandchild).join()

        def grandchild():
            assert now() == start + 1
            sleep(1)

        fork(child).join()
        assert now() == start + 2


def test_sleepers_wake_in_the_order_of_their_deadlines(rng):
    times = rng.sample(range(1, 100_000), 200)
    woken = []

    def sleeper(d):
        sleep(d)
        woken.append((d, now() - start))

    with bubble():
        start = now()
        with WaitGroup() as sleepers:
            for d in times:
                sleepers.go(sleeper, d)
    assert woken == [(d, d) for d in sorted(times)]


def test_who_can_go_on_is_not_overtaken_by_time():
    """A goroutine that hands the work on and on keeps the clock where it is."""
    with bubble():
        start = now()
        late = after(1e-9)
        ch = Chan()
        for _ in range(1000):
            go(ch.send, now())
            assert ch.recv() == start
            assert is_empty(late)
        assert late.recv() == pytest.approx(start + 1e-9)


def test_very_long_and_very_short(elapsed):
    with bubble():
        elapsed()
        sleep(1e-9)
        assert 0 < elapsed() < 1e-6
        sleep(100 * 365 * 24 * HOUR)
        assert elapsed() > 99 * 365 * 24 * HOUR


# --- wait ---------------------------------------------------------------------------------------


def test_wait_alone():
    with bubble():
        wait()
        go(int)
        wait()


def test_wait_until_all_have_ended():
    with bubble():
        ch, done = Chan(), []

        def pass_on():
            n = ch.recv()
            if n == 0:
                done.append(True)
            else:
                go(pass_on)
                ch.send(n - 1)

        go(pass_on)
        ch.send(100)
        wait()
        assert done


def test_wait_again_and_again():
    """Each returns when the others have come to rest, and not before."""
    with bubble():
        start, steps, gate = now(), atomic.Int(), Chan()

        def worker():
            for _ in range(3):
                for _ in range(5):
                    gosched()
                steps.add(1)
                gate.recv_ok()

        for _ in range(10):
            go(worker)
        for n in range(1, 4):
            wait()
            assert steps.load() == 10 * n
            for _ in range(10):
                gate.send(None)
        wait()
        assert now() == start


def test_wait_does_not_move_the_clock():
    with bubble():
        start = now()
        sleeper = go(sleep, HOUR)
        wait()
        assert (now(), sleeper.state) == (start, "waiting")
        sleep(HOUR)
        wait()
        assert sleeper.done


def test_wait_sees_the_timers_that_are_due():
    with bubble():
        seen = []
        gate = Chan()

        def late():
            seen.append("late")
            gate.recv_ok()
            seen.append("later")

        after_func(0, late)
        wait()
        assert seen == ["late"]
        gate.close()
        wait()
        assert seen == ["late", "later"]


def test_several_wait_at_a_time():
    """Who waits is durably blocked for the others who wait."""
    with bubble():
        rested = []

        def rest(n):
            for _ in range(3):
                wait()
                rested.append(n)

        with Group() as g:
            for n in range(4):
                g.go(rest, n)
        assert sorted(rested) == sorted([*range(4)] * 3)


def test_wait_takes_who_waits_for_the_outside_for_busy():
    ch = Chan()
    actor = release_from_outside(lambda: ch.send(1))
    with bubble():
        got = fork(ch.recv)
        wait()
        assert got.done
    actor.join()


def test_wait_can_be_cancelled(elapsed):
    with bubble():
        elapsed()
        with cancel_scope() as scope:
            scope.cancel()
            with pytest.raises(Cancelled):
                wait()
        wait()


def test_wait_outside_of_a_bubble():
    for outside in (wait, lambda: in_thread(wait), lambda: fork(wait).join()):
        with pytest.raises(RuntimeError, match=r"wait\(\) outside of a bubble"):
            outside()


# --- programs and a model -----------------------------------------------------------------------

# A program is a tree; ("sleep", d), ("event", n), ("seq", programs), ("all", programs) at the same
# time in a Group, ("within", d, program) with a time-out, ("meet", c, d): two that come to a
# channel after c and d. The model knows when each event happens, and never waits.


def program_of(rng, depth, numbers):
    kind = rng.choice(["sleep", "event", "meet"] if depth == 0 else ["seq", "all", "within", "seq"])
    match kind:
        case "sleep":
            return kind, duration(rng)
        case "event":
            return kind, next(numbers)
        case "meet":
            return kind, duration(rng), duration(rng)
        case "within":
            return kind, duration(rng, 3), program_of(rng, depth - 1, numbers)
        case _:
            return kind, [program_of(rng, depth - 1, numbers) for _ in range(rng.randrange(1, 5))]


def duration(rng, most=1):
    """In seconds; of so many that no two moments of a program are the same."""
    return rng.randrange(1, most * 10**9) / 1000


def carry_out(program, happened, start):
    match program:
        case "sleep", d:
            sleep(d)
        case "event", n:
            happened[n] = round((now() - start) * 1000)
        case "seq", programs:
            for each in programs:
                carry_out(each, happened, start)
        case "all", programs:
            with Group() as g:
                for each in programs:
                    g.go(carry_out, each, happened, start)
        case "within", d, inner:
            try:
                with timeout(d):
                    carry_out(inner, happened, start)
            except TimeoutError:
                pass
        case "meet", c, d:
            ch = Chan()
            with Group() as g:
                g.go(lambda: (sleep(c), ch.send(None)))
                g.go(lambda: (sleep(d), ch.recv()))


def model(program, happened, t, limit):
    """When it ends, and whether it came that far: at `limit` it is cancelled."""
    match program:
        case "sleep", d:
            t += d
        case "event", n:
            happened[n] = round(t * 1000)
        case "seq", programs:
            for each in programs:
                t, whole = model(each, happened, t, limit)
                if not whole:
                    return t, False
        case "all", programs:
            ends = [model(each, happened, t, limit) for each in programs]
            return max(end for end, _ in ends), all(whole for _, whole in ends)
        case "within", d, inner:
            end, whole = model(inner, happened, t, min(limit, t + d))
            return end, whole or t + d < limit
        case "meet", c, d:
            t += max(c, d)
    return (t, True) if t <= limit else (limit, False)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_random_programs_take_the_time_that_the_model_says(rng, depth):
    for _ in range(40):
        program = program_of(rng, depth, iter(range(10**6)))
        happened, expected = {}, {}
        with bubble():
            start = now()
            carry_out(program, happened, start)
            took = now() - start
        end, whole = model(program, expected, 0, math.inf)
        assert happened == expected
        assert (round(took * 1000), whole) == (round(end * 1000), True)
