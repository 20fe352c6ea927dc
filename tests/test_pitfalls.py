"""What is known to go wrong when goroutines share the C stack of a thread; a test for each.

In some way each of these was broken once, or would be if one line of the core were left out. What
would hang or crash then runs in a process of its own.
"""

import platform
import resource
import sys
import threading

import pytest

from gofer import fork, gosched

pytestmark = pytest.mark.usefixtures("nothing_left")

MANY = 20


# --- the locks of objects -----------------------------------------------------------------------

BESIDE = """
    import collections
    from gofer import *

    class Key:
        def __init__(self, n=0):
            self.n = n

        def __hash__(self):
            return 7

        def __eq__(self, other):
            gate.recv()
            return self.n == other.n

        def __repr__(self):
            gate.recv()
            return "Key"

    def parks():
        gate.recv()
        yield Key()

    gate = Chan()
    kept = Key(1)
    {setup}
    tasks = [fork(lambda: {inside})]
    while tasks[0].state != "waiting":
        gosched()
    others = [fork(lambda: {beside}) for _ in range(3)]
    for task in others:
        task.join()  # it does not wait for the one that is parked
    while not tasks[0].done:
        try:
            gate.send(None)
        except Deadlock:  # it has ended, and nobody is left to receive
            break
    tasks[0].exception()
    print("done")
"""

BESIDES = {
    "list.sort": ("x = [3, 1, 2]", "x.sort(key=lambda n: (gate.recv(), n))", "x.append(1)"),
    "list.extend": ("x = [3, 1, 2]", "x.extend(parks())", "x.append(1)"),
    "list.remove": ("x = [Key()]", "x.remove(kept)", "x.append(1)"),
    "list.__eq__": ("x, y = [Key()], [kept]", "x == y", "(x.append(1), y.append(1))"),
    "list.__repr__": ("x = [Key()]", "repr(x)", "x.append(1)"),
    "dict.get": ("x = {Key(): 1}", "x.get(kept)", "x.update(a=1)"),
    "dict.setdefault": ("x = {Key(): 1}", "x.setdefault(kept)", "x.update(a=1)"),
    "dict.update": ("x = {Key(): 1}", "x.update({kept: 2})", "x.update(a=1)"),
    "dict of pairs": ("x = {}", "x.update((k, k) for k in parks())", "x.update(a=1)"),
    "dict.__eq__": ("x, y = {1: Key()}, {1: kept}", "x == y", "(x.clear(), y.clear())"),
    "set.add": ("x = {Key()}", "x.add(kept)", "x.add(1)"),
    "set.update": ("x, y = {Key()}, {kept}", "x.update(y)", "(x.add(1), y.add(1))"),
    "set.intersection": ("x, y = {Key()}, {kept}", "x & y", "(x.add(1), y.add(1))"),
    "set.__eq__": ("x, y = {Key()}, {kept}", "x == y", "(x.add(1), y.add(1))"),
    "deque.index": ("x = collections.deque([Key()])", "x.index(kept)", "x.append(1)"),
    "deque.extend": ("x = collections.deque()", "x.extend(parks())", "x.append(1)"),
}


@pytest.mark.parametrize("name", BESIDES)
def test_who_is_parked_inside_an_object_does_not_lock_it(program, name):
    """Free-threaded, the call holds the locks of its objects: it must give them up to park."""
    setup, inside, beside = BESIDES[name]
    result = program(BESIDE.format(setup=setup, inside=inside, beside=beside))
    assert result == (0, "done\n", "")


# --- the C stack and the processor --------------------------------------------------------------


def test_slices_of_any_size():
    """From nothing to beyond what is pooled, growing and shrinking, each beside others."""

    def down(depth):
        kept = [depth]
        gosched()
        below = max([depth - 1], key=down) if depth else 0
        gosched()
        assert kept == [depth]
        return below + 1

    tasks = [fork(down, n * 7 % 40) for n in range(100)]
    for n, task in enumerate(tasks):
        depth = n * 7 % 40
        assert task.join() == max(depth, 1)


def test_the_first_function_may_be_too_big_for_its_chunk():
    names = [f"v{n}" for n in range(600)]
    lines = [f"    {name} = {n} if {n % 200} else park()" for n, name in enumerate(names)]
    source = "\n".join(["def big(park):", *lines, f"    return [{', '.join(names)}]"])
    namespace = {}
    exec(source, namespace)
    big = namespace["big"]
    expected = big(lambda: None)
    for _ in range(3):
        tasks = [fork(function, gosched) for _ in range(MANY) for function in (big, repr)]
        assert [task.join() for task in tasks[::2]] == [expected] * MANY


@pytest.mark.skipif(sys.platform == "darwin", reason="counts the page faults of Linux")
def test_calls_across_the_end_of_a_chunk_map_no_memory():
    """One such call is a mapping, a page fault and an unmapping if blocks are not kept."""

    def leaf():
        return 0

    def down(depth):
        if depth:
            down(depth - 1)
        else:
            for _ in range(1000):
                leaf()

    def faults():
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    def body():
        # each depth more ends elsewhere in the chunk; one of them is at its end
        before = faults()
        for depth in range(40):
            down(depth)
        return faults() - before

    assert min(fork(body).join() for _ in range(5)) < 500


FIRST = {
    "a C function": "go(libc.snprintf, out, 100, b'%.3f', ctypes.c_double(1.5))",
    "a C function after a Python function": "go(lambda: gosched() or write())",
    "a C function below a callback": "go(Kind(lambda: write()))",
}


@pytest.mark.parametrize("first", FIRST)
def test_c_code_finds_its_stack_aligned(program, first):
    """A variadic function keeps vector registers on its stack, which must be aligned for that."""
    pytest.importorskip("ctypes")
    result = program(f"""
        import ctypes
        from gofer import *

        def write():
            libc.snprintf(out, 100, b"%.3f", ctypes.c_double(1.5))

        libc, Kind = ctypes.CDLL(None), ctypes.CFUNCTYPE(None)
        out = ctypes.create_string_buffer(100)
        {FIRST[first]}.join()
        print(out.value.decode())
    """)
    assert result == (0, "1.500\n", "")


def test_in_callbacks_from_c_code_without_the_gil(program):
    """Each call lets go of the thread state, and each callback takes it again, in any order."""
    pytest.importorskip("ctypes")
    result = program("""
        import ctypes, threading
        from gofer import *

        KIND = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)

        def nested(n):
            def callback(m):
                for _ in range((n + m) % 3):
                    gosched()
                return nested(m - 1) + 1 if m else 0
            return KIND(callback)(n)

        def attach():
            for _ in range(100):
                ctypes.CDLL(None).getpid()

        thread = threading.Thread(target=attach)
        thread.start()
        tasks = [fork(nested, n % 7) for n in range(100)]
        print([task.join() for task in tasks] == [n % 7 for n in range(100)])
        thread.join()
    """)
    assert result == (0, "True\n", "")


UPWARDS = {"x86_64": 0x800, "aarch64": 0x400000, "arm64": 0x400000}


def test_the_rounding_mode_is_its_own(program):
    """And what else the control words of the processor hold."""
    pytest.importorskip("ctypes")
    upwards = UPWARDS[platform.machine()]
    result = program(f"""
        import ctypes, ctypes.util
        from gofer import *

        libm = ctypes.CDLL(ctypes.util.find_library("m"))
        one, gate = 1.0, Chan()

        def rounded_up():
            libm.fesetround({upwards})
            try:
                before = one / 3
                gate.recv()
                return before, one / 3
            finally:
                libm.fesetround(0)

        def usual():
            before = one / 3
            gosched()
            return before, one / 3

        tasks, others = [], []
        for _ in range(5):
            others.append(fork(usual))
            tasks.append(fork(rounded_up))
            others.append(fork(usual))  # starts where the one before parks
        print(*[task.join() for task in others], one / 3)
        for _ in tasks:
            gate.send(None)
        print(*[task.join() for task in tasks])
    """)
    nearest, above = "0.3333333333333333", "0.33333333333333337"
    pair, pair_above = f"({nearest}, {nearest})", f"({above}, {above})"
    first, second = [*[pair] * 10, nearest], [pair_above] * 5
    assert result == (0, f"{' '.join(first)}\n{' '.join(second)}\n", "")


def test_who_has_started_stays_on_its_thread():
    def body():
        thread = threading.get_ident()
        for _ in range(20):
            gosched()
            max(range(3), key=lambda _: gosched() or 0)
            assert threading.get_ident() == thread
        return True

    assert all(task.join() for task in [fork(body) for _ in range(MANY)])


# --- monitoring ---------------------------------------------------------------------------------

MONITORED = """
    import sys
    from gofer import *

    def leaf(n):
        kept = [n]
        gate.recv()
        return kept

    def top(n):
        return [x for x in sorted([n], key=leaf)]

    def start():
        tasks = [fork(top, n) for n in range(20)]
        while not all(task.state == "waiting" for task in tasks):
            gosched()
        return tasks

    def stop(tasks):
        for _ in tasks:
            gate.send(None)
        assert [task.join() for task in tasks] == [[n] for n in range(20)]

    def line(code, number):
        seen.append(code.co_name)
        {action}

    gate, seen = Chan(), []
    M = sys.monitoring
    M.use_tool_id(3, "test")
    M.register_callback(3, M.events.LINE, line)
    {body}
    M.free_tool_id(3)
    print("leaf" in seen, "done")
"""

MONITORS = {
    "a callback that disables itself": (
        "return M.DISABLE",
        """
    M.set_events(3, M.events.LINE)
    for _ in range(5):
        tasks = start()
        M.restart_events()
        stop(tasks)
    M.set_events(3, 0)
""",
    ),
    "a callback that parks everywhere": (
        "if len(seen) % 3 == 0 and current().id != 1: gosched()",
        """
    M.set_events(3, M.events.LINE)
    for _ in range(5):
        stop(start())
    M.set_events(3, 0)
""",
    ),
    "another tool comes and goes": (
        "return None",
        """
    M.use_tool_id(4, "other")
    M.set_local_events(3, leaf.__code__, M.events.LINE)
    stop(start())
    M.register_callback(4, M.events.LINE, line)
    for _ in range(5):
        M.set_local_events(4, leaf.__code__, M.events.LINE)
        stop(start())
        M.set_local_events(4, leaf.__code__, 0)
    M.free_tool_id(4)
    M.set_local_events(3, leaf.__code__, 0)
""",
    ),
}


@pytest.mark.skipif(not hasattr(sys, "monitoring"), reason="no sys.monitoring before 3.12")
@pytest.mark.parametrize("name", MONITORS)
def test_monitoring(program, name):
    action, body = MONITORS[name]
    if hasattr(sys, "gettotalrefcount") and "restart_events" in body:
        pytest.skip("CPython asserts that what runs in instrumented code is a thread's")
    assert program(MONITORED.format(action=action, body=body.strip())) == (0, "True done\n", "")
