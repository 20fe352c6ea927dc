"""gofer.testing.bubble: its clock, and what moves it. How bubbles end: test_bubble_ends.py.

Many cases are those of Go's internal/synctest.
"""

import math
import threading
from datetime import timedelta

import pytest

from gofer import (
    Chan,
    Cond,
    Group,
    Mutex,
    Once,
    RWMutex,
    Semaphore,
    Ticker,
    Timer,
    WaitGroup,
    after,
    after_func,
    cancel_scope,
    context,
    current,
    fork,
    go,
    gosched,
    select,
    sleep,
    timeout,
)
from gofer.errors import Cancelled, DeadlineExceeded
from gofer.sync import SingleFlight, atomic
from gofer.testing import bubble, wait
from gofer.time import now

from shared import in_thread, is_empty

pytestmark = pytest.mark.usefixtures("nothing_left")

HOUR = 3600


@pytest.fixture
def elapsed():
    """`elapsed()` is how much time has passed, for the caller, since the test began to use it."""
    start = []

    def since():
        start.extend([now()] if not start else [])
        return now() - start[0]

    return since


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


# --- timers -------------------------------------------------------------------------------------


def test_a_timer_delivers_its_time():
    with bubble():
        start = now()
        assert Timer(5).c.recv() == start + 5
        early = Timer(1)
        sleep(3)
        assert early.c.recv() == start + 6
        assert after(2).recv() == start + 10 == now()


def test_timers_are_reset_and_stopped():
    with bubble():
        start = now()
        timer = Timer(1)
        assert timer.c.recv() == start + 1
        assert not timer.reset(2)
        assert timer.c.recv() == start + 3
        timer.reset(3)
        sleep(1)
        assert timer.reset(3)
        assert timer.c.recv() == start + 7
        timer.reset(1)
        sleep(2)
        assert timer.stop()
        sleep(HOUR)
        assert is_empty(timer.c)


def test_a_timer_of_no_time_has_fired_at_once():
    with bubble():
        start = now()
        timer = Timer(0)
        assert select(timer.c.recv, default=True) == (0, start)
        timer.reset(-1)
        assert select(timer.c.recv, default=True) == (0, start)
        assert select(after(0).recv, default=True) == (0, start)


def test_after_func_of_no_time_does_not_wait_for_the_others_to_block():
    with bubble():
        ran = atomic.Int()
        timer = after_func(0, ran.add, 1)
        while not ran.load():
            gosched()
        timer.reset(0)
        while ran.load() == 1:
            gosched()
        start = now()
        wait()
        assert (ran.load(), now()) == (2, start)


def test_a_timer_reset_to_no_time_again_and_again():
    with bubble():
        timer, done = Timer(0), Chan()

        def receive():
            while select(timer.c.recv, done.recv_ok)[0] == 0:
                pass

        go(receive)
        wait()
        timer.reset(0)
        wait()
        done.close()


def test_functions_of_timers_are_in_the_bubble(elapsed):
    with bubble():
        elapsed()
        seen = []

        def later():
            seen.append(elapsed())
            go(still_later)

        def still_later():
            sleep(1)
            seen.append(elapsed())

        after_func(1, later)
        sleep(3)
        assert seen == [1, 2]


def test_functions_of_timers_can_be_stopped_and_moved(elapsed):
    with bubble():
        elapsed()
        seen = []
        moved = after_func(1, lambda: seen.append(elapsed()))
        stopped = after_func(2, seen.append, "stopped")
        sleep(0.5)
        assert moved.reset(10)
        assert stopped.stop()
        sleep(HOUR)
        assert seen == [10.5]
        assert not moved.reset(1)
        sleep(HOUR)
        assert seen == [10.5, HOUR + 1.5]


def test_timers_that_start_timers():
    for _ in range(20):
        with bubble():
            started = atomic.Int()
            for _ in range(100):
                after_func(1, after_func, 0, started.add, 1)
            sleep(2)
            wait()
            assert started.load() == 100


def test_a_timer_that_is_left_over_does_not_fire():
    ran = []
    with bubble():
        after_func(1, ran.append, 1)
        Timer(1)
        left = Ticker(1)
    sleep(0.001)
    assert ran == []
    assert is_empty(left.c)


def test_ticks_come_on_a_grid():
    with bubble():
        start = now()
        ticker = Ticker(10)
        assert [ticker.c.recv() - start for _ in range(3)] == [10, 20, 30]
        sleep(25)  # one is kept, one is dropped
        assert [ticker.c.recv() - start for _ in range(2)] == [40, 60]
        ticker.reset(1)
        assert ticker.c.recv() == start + 61
        ticker.stop()
        assert list(ticker) == []


def test_ticks_that_nobody_takes_cost_nothing():
    """As many steps of the clock as microseconds in a year would take days."""
    with bubble():
        start = now()
        ticker = Ticker(1e-6)
        sleep(365 * 24 * HOUR)
        assert now() == start + 365 * 24 * HOUR
        assert ticker.c.recv() < start + 1
        assert ticker.c.recv() > start + 364 * 24 * HOUR
        ticker.stop()


def test_many_tickers():
    with bubble():
        start = now()
        counts = dict.fromkeys([1, 2, 3, 5, 7], 0)

        def count(period):
            for _ in Ticker(period):
                counts[period] += 1
                if now() >= start + 210:
                    return

        with Group() as g:
            for period in counts:
                g.go(count, period)
        assert counts == {period: 210 // period for period in counts}


# --- scopes and contexts ------------------------------------------------------------------------


def test_a_timeout_runs_by_its_clock(elapsed):
    with bubble():
        elapsed()
        with pytest.raises(TimeoutError):
            with timeout(HOUR):
                Chan().recv()
        assert elapsed() == HOUR
        with timeout(HOUR) as scope:
            sleep(HOUR - 1)
        assert not scope.expired
        sleep(HOUR)
        assert elapsed() == 3 * HOUR - 1


def test_the_first_of_several_timeouts(elapsed):
    with bubble():
        elapsed()
        with pytest.raises(TimeoutError):
            with timeout(2 * HOUR), timeout(3 * HOUR):
                with pytest.raises(TimeoutError):
                    with timeout(HOUR):
                        sleep(4 * HOUR)
                assert elapsed() == HOUR
                sleep(4 * HOUR)
        assert elapsed() == 2 * HOUR


def test_a_scope_that_somebody_cancels_later(elapsed):
    with bubble():
        elapsed()
        with cancel_scope() as scope:
            after_func(5, scope.cancel)
            sleep(HOUR)
        assert elapsed() == 5


def test_a_bubble_in_a_timeout_of_the_world_outside():
    """Its time is not that of the bubble."""
    with pytest.raises(TimeoutError):
        with timeout(0.001):
            with bubble():
                sleep(HOUR)
                outside.recv()
    with timeout(HOUR):
        with bubble():
            sleep(2 * HOUR)


outside = Chan()


def test_deadlines_of_contexts(elapsed):
    with bubble():
        elapsed()
        ctx, cancel = context.with_timeout(context.background(), HOUR)
        below, cancel_below = context.with_deadline(ctx, now() + 2 * HOUR)
        assert below.deadline() == now() + HOUR
        sleep(HOUR - 1)
        assert ctx.err() is None
        assert below.done.recv_ok() == (None, False)
        assert elapsed() == HOUR
        assert isinstance(below.err(), DeadlineExceeded)
        cancel_below()
        cancel()
        late, cancel = context.with_deadline(context.background(), now())
        assert isinstance(late.err(), DeadlineExceeded)
        cancel()


def test_functions_of_contexts(elapsed):
    with bubble():
        elapsed()
        seen = []
        ctx, cancel = context.with_timeout(context.background(), 5)
        context.after_func(ctx, lambda: seen.append(elapsed()))
        wait()
        assert seen == []
        sleep(6)
        assert seen == [5]
        cancel()


def test_a_context_that_is_never_done_does_not_stop_the_clock():
    with bubble():
        start = now()
        done = context.background().done
        assert select(after(HOUR).recv, done.recv_ok) == (0, start + HOUR)
        assert select(after(1).recv, context.todo().done.recv_ok)[0] == 0


# --- what is durable ----------------------------------------------------------------------------


def waits_for_send():
    ch = Chan()
    return lambda: ch.send(1), ch.recv


def waits_for_recv():
    ch = Chan()
    return ch.recv, lambda: ch.send(1)


def waits_for_close():
    ch = Chan()
    return ch.recv_ok, ch.close


def waits_for_room():
    ch = Chan(1)
    ch.send(0)
    return lambda: ch.send(1), ch.recv


def waits_in_select():
    one, other = Chan(), Chan()
    return lambda: select(one.recv, (other.send, 2)), other.recv


def waits_for_mutex():
    mutex = Mutex()
    mutex.lock()
    return mutex.lock, mutex.unlock


def waits_to_read():
    lock = RWMutex()
    lock.lock()
    return lock.rlock, lock.unlock


def waits_to_write():
    lock = RWMutex()
    lock.rlock()
    return lock.lock, lock.runlock


def waits_for_semaphore():
    semaphore = Semaphore(2)
    semaphore.acquire()
    return lambda: semaphore.acquire(2), semaphore.release


def waits_for_wait_group():
    group = WaitGroup()
    group.add()
    return group.wait, group.done


def waits_for_cond():
    mutex = Mutex()
    cond = Cond(mutex)

    def waiter():
        with mutex:
            cond.wait()

    return waiter, cond.signal


def waits_for_goroutine():
    gate = Chan()
    return go(gate.recv).join, lambda: gate.send(1)


def waits_for_task():
    gate = Chan()
    return fork(gate.recv).exception, lambda: gate.send(1)


def waits_for_once():
    gate, once = Chan(), Once()
    first = go(once.do, gate.recv)
    while first.state != "waiting":
        gosched()
    return lambda: once.do(int), lambda: gate.send(1)


def waits_for_single_flight():
    gate, flights = Chan(), SingleFlight()
    first = go(flights.do, 1, gate.recv)
    while first.state != "waiting":
        gosched()
    return lambda: flights.do(1, int), lambda: gate.send(1)


def waits_for_context():
    ctx, cancel = context.with_cancel(context.background())
    return lambda: ctx.done.recv_ok(), cancel


WAYS = [value for name, value in globals().items() if name.startswith("waits_")]


@pytest.mark.parametrize("way", WAYS)
def test_who_waits_for_what_was_made_inside_lets_time_pass(way, elapsed):
    with bubble():
        elapsed()
        waiter, release = way()

        def later():
            sleep(HOUR)
            release()

        go(later)
        waiter()
        assert elapsed() == HOUR


def release_from_outside(release):
    """To be called outside of the bubble: a goroutine there acts when the caller waits."""
    main = current()

    def act():
        while main.state != "waiting":
            gosched()
        release()

    return go(act)


@pytest.mark.parametrize("way", WAYS)
def test_who_waits_for_what_was_made_outside_holds_up_the_clock(way, elapsed):
    waiter, release = way()
    actor = release_from_outside(release)
    with bubble():
        elapsed()
        late = after(HOUR)
        waiter()
        assert elapsed() == 0
        assert is_empty(late)
    actor.join()


def test_a_select_with_one_case_from_outside_holds_up_the_clock(elapsed):
    ch = Chan()
    actor = release_from_outside(ch.close)
    with bubble():
        elapsed()
        assert select(ch.recv_ok, Chan().recv, after(HOUR).recv) == (0, (None, False))
        assert elapsed() == 0
    actor.join()


def test_others_sleep_on_while_one_waits_for_the_outside(elapsed):
    """The clock stands for all, and then goes on."""
    gate = Chan()
    with bubble():
        elapsed()
        with Group() as g:
            sleepers = [g.go(sleep, n * HOUR) for n in range(1, 4)]
            waiter = g.go(gate.recv)
            opener.send(gate)
            waiter.join()
            assert elapsed() == 0
            sleepers[2].join()
        assert elapsed() == 3 * HOUR


opener = Chan(1)


@pytest.fixture(autouse=True)
def somebody_outside():
    """Opens the gate that it is sent, once, when somebody has come to it."""

    def open_gate():
        gate = opener.recv()
        if gate is not None:
            gate.send("open")

    g = go(open_gate)
    yield
    if not g.done:
        opener.send(None)
    g.join()


def test_a_timer_from_outside(elapsed):
    timer = Timer(0.001)
    with bubble():
        elapsed()
        late = after(HOUR)
        timer.c.recv()
        assert (elapsed(), is_empty(late)) == (0, True)
        timer.reset(0.001)  # of the time outside, as ever
        timer.c.recv()
        assert (elapsed(), is_empty(late)) == (0, True)


def test_a_timer_taken_out_of_its_bubble():
    with bubble():
        timers = [Timer(HOUR), after_func(HOUR, int), Timer(0)]
        ticker = Ticker(HOUR)
    for timer in timers[:2]:
        assert not timer.stop()
    assert timers[2].stop()
    for timer in timers:
        with pytest.raises(RuntimeError, match=r"reset\(\) of a timer outside of the bubble"):
            timer.reset(1)
    with pytest.raises(RuntimeError, match="outside of the bubble"):
        ticker.reset(1)
    with bubble():
        with pytest.raises(RuntimeError, match="outside of the bubble"):
            timers[0].reset(1)


def test_a_thread_outside_acts(elapsed):
    ch = Chan()
    main = current()

    def act():
        while main.state != "waiting":
            sleep(0)
        ch.send("from a thread")

    thread = threading.Thread(target=act)
    thread.start()
    with bubble():
        elapsed()
        late = after(HOUR)
        assert ch.recv() == "from a thread"
        assert (elapsed(), is_empty(late)) == (0, True)
    while thread.is_alive():
        gosched()
    thread.join()


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
