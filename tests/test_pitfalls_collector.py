"""What parked goroutines hold, and the collector: each of these went wrong once, or would.

A test for each line of the core that tells the collector of their frames.
"""

import gc
import sys
import weakref

import pytest

from gofer import Chan, fork, gosched, run

from shared.parking import scrub

pytestmark = pytest.mark.usefixtures("nothing_left")

MANY = 20


class Thing:
    """Can be referred to weakly."""


def receive(keep):
    thing = keep()
    Chan().recv()
    return thing


def receive_by_a_bound_method(keep):
    thing, receive = keep(), Chan().recv
    receive()
    return thing


def iterate(keep):
    thing = keep()
    for _ in Chan():
        pass
    return thing


def send(keep):
    Chan().send(keep())


def receive_an_argument(keep):
    def inner(thing, *, gate):
        gate.recv()
        return thing

    inner(keep(), gate=Chan())


def receive_from_a_cell(keep):
    gate, thing = Chan(), keep()

    def inner():
        gate.recv()
        return thing

    inner()


def below_a_c_function(keep):
    gate, thing = Chan(), keep()
    return sorted([1, 2], key=lambda _: gate.recv()), thing


def held_by_a_c_function_alone(keep):
    return list(map(lambda thing: (Chan().recv(), thing), [keep()]))  # noqa: C417


def in_a_generator(keep):
    def inner(gate, thing):
        gate.recv()
        yield thing

    return list(inner(Chan(), keep()))


def in_a_property(keep):
    class Owner:
        @property
        def value(self):
            thing = keep()
            Chan().recv()
            return thing

    return Owner().value


def in_a_with_block(keep):
    class Manager:
        def __enter__(self):
            return keep()

        def __exit__(self, *args):
            pass

    with Manager() as thing:
        Chan().recv()
        return thing


def in_an_except_block(keep):
    try:
        raise KeyError(keep())
    except KeyError:
        Chan().recv()


def between_temporaries(keep):
    return [keep(), Chan().recv(), keep()]


def two_that_wait_for_each_other(keep):
    there, back = Chan(), Chan()
    other = fork(lambda: (back.recv(), there.send(keep())))
    there.recv()
    back.send(None)
    return other


WAITS = [
    receive,
    receive_by_a_bound_method,
    iterate,
    send,
    receive_an_argument,
    receive_from_a_cell,
    below_a_c_function,
    held_by_a_c_function_alone,
    in_a_generator,
    in_a_property,
    in_a_with_block,
    in_an_except_block,
    between_temporaries,
    two_that_wait_for_each_other,
]


@pytest.mark.parametrize("wait", WAITS, ids=lambda wait: wait.__name__)
def test_the_collector_spares_what_nobody_can_wake(wait, parked):
    """Nothing but the parked frames refers to the channel and the thing, and that counts."""
    refs = []

    def keep():
        thing = Thing()
        refs.append(weakref.ref(thing))
        return thing

    def main():
        parked(*[fork(wait, keep) for _ in range(MANY)])
        for _ in range(3):
            gc.collect()
            scrub()
        assert all(ref() is not None for ref in refs)

    run(main)
    while any(ref() is not None for ref in refs):  # whoever has ended may not be reaped yet
        gosched()
        gc.collect()


def test_the_frame_of_a_parked_goroutine_leads_to_its_channel(parked):
    frames = []

    def body(n):
        gate = Chan()
        frames.append(sys._getframe())
        return n, gate.recv()

    tasks = [fork(lambda n=n: sorted([n], key=body)) for n in range(MANY)]
    parked(*tasks)
    gc.collect()
    scrub()
    for frame in frames:
        frame.f_locals["gate"].send(7)
    assert [task.join() for task in tasks] == [[n] for n in range(MANY)]


def test_what_only_a_suspended_generator_can_wake(parked):
    generators = []

    def body(n):
        gate = Chan()

        def wake():
            yield
            gate.send(n)

        generator = wake()
        next(generator)
        generators.append(generator)
        return gate.recv()

    tasks = [fork(body, n) for n in range(MANY)]
    parked(*tasks)
    gc.collect()
    for generator in generators:
        assert list(generator) == []
    assert sorted(task.join() for task in tasks) == list(range(MANY))


class Parks:
    def __init__(self, gate):
        self.gate = gate

    def __repr__(self):
        return str(self.gate.recv())

    @property
    def value(self):
        return self.gate.recv()


class Collects:
    """Its repr collects, so many calls of C deep."""

    def __init__(self, depth):
        self.depth = depth

    def __repr__(self):
        if self.depth:
            return repr(Collects(self.depth - 1))
        gc.collect()
        return "done"


def test_collecting_on_a_stack_that_was_overwritten(parked):
    """References of C code lie on the slice of who is parked: the collector must see its copy."""
    gate = Chan()
    tasks = [fork(lambda: repr(Parks(gate))) for _ in range(MANY)]
    tasks += [fork(lambda: Parks(gate).value) for _ in range(MANY)]
    parked(*tasks)
    for depth in (0, 3, 9, 30):
        scrub()
        assert repr(Collects(depth)) == "done"
    for _ in tasks:
        gate.send(7)
    assert [task.join() for task in tasks] == ["7"] * MANY + [7] * MANY


class Any:
    """Every special method parks and makes something that its caller holds."""

    def __init__(self, park, n=0):
        self.park, self.n = park, n
        park()

    def __del__(self):
        self.park()

    def __repr__(self):
        return f"Any {self.park()}"

    def __len__(self):
        return self.park()

    def __iter__(self):
        yield [self.park()]
        yield [self.park()]

    def __eq__(self, other):
        return [self.park()] == [7] and self.n == other.n

    def __hash__(self):
        return self.park()

    def __lt__(self, other):
        return [self.park()] == [7] and self.n < other.n

    def __add__(self, other):
        return [self.park(), *other]

    def __getitem__(self, key):
        return [key, self.park()]

    def __setitem__(self, key, value):
        self.n = len([key, self.park(), value])

    def __call__(self, *args, **kwargs):
        return [args, kwargs, self.park()]

    def __enter__(self):
        return [self.park()]

    def __exit__(self, *args):
        return bool(self.park())

    def __getattr__(self, name):
        return [name, self.park()]


def use_operators(park):
    thing, other = Any(park), (1,)
    thing[[1]] = [2]
    return thing + other, thing[2:3], len(thing), thing == Any(park), thing.missing, -thing.n


def use_containers(park):
    table = {Any(park, 1): [1], Any(park, 2): [2]}
    return table[Any(park, 2)], len({Any(park), Any(park)}), [Any(park, 3)].index(Any(park, 3))


def use_sorting(park):
    things = sorted([Any(park, 3), Any(park, 1), Any(park, 2)])
    return [thing.n for thing in things], max(Any(park, 1), Any(park, 2)).n


def use_calls(park):
    return Any(park)(1, *Any(park), key=[park()], **{k: [park()] for k in "ab"}), repr([Any(park)])


def use_statements(park):
    a, b = Any(park)
    with Any(park) as entered, Any(park):
        raise KeyError([park()])
    try:
        raise KeyError([1]) from ValueError(Any(park))
    except KeyError as error:
        return a, b, entered, [park()], repr(error.__cause__)


def use_generators(park):
    def inner():
        try:
            yield [park()]
            yield from Any(park)
        finally:
            park()

    half = inner()
    next(half)
    del half
    return list(inner()), [[n, park()] for n in inner()]


USES = [use_operators, use_containers, use_sorting, use_calls, use_statements, use_generators]


@pytest.mark.parametrize("threshold", [0, 1, 100])
def test_collections_at_any_time_while_all_are_parked(threshold, rng):
    """The heap is frozen (conftest.py): else some collectors hide what they were not told of."""
    gates, tasks = [], []

    def park():
        gate = Chan()
        gates.append(gate)
        return gate.recv()

    expected = {use: use(lambda: 7) for use in USES}
    assert gc.get_freeze_count() > 0
    before = gc.get_threshold()
    gc.set_threshold(threshold)
    try:
        for _ in range(10):
            tasks += [(use, fork(use, park)) for use in rng.sample(USES, len(USES))]
            for _ in range(20):
                rng.shuffle(gates)
                for _ in range(len(gates) * 3 // 4):
                    gates.pop().send(7)
                gosched()
                if rng.random() < 0.3:
                    gc.collect()
        while not all(task.done for _, task in tasks):
            while gates:
                gates.pop().send(7)
            gosched()
        gc.collect()
    finally:
        gc.set_threshold(*before)
    for use, task in tasks:
        assert task.join() == expected[use], use.__name__


class Yields:
    def __getitem__(self, key):
        gosched()
        return key

    def __call__(self, *args, **kwargs):
        gosched()
        return args, kwargs

    def __iter__(self):
        gosched()
        return iter([1])

    def __add__(self, other):
        gosched()
        return other

    def __lt__(self, other):
        gosched()
        return True

    @property
    def value(self):
        gosched()
        return self


HOLDS = {
    "subscript": lambda k, o: k[o],
    "call": lambda k, o: k(o),
    "call with everything": lambda k, o: k(*[o], a=o, **dict.fromkeys("bc", o)),
    "iteration": lambda k, o: [o for _ in k],
    "iteration in C": lambda k, o: (list(k), o),
    "operator": lambda k, o: (k + o, k < o),
    "attribute": lambda k, o: (k.value, o),
    "key function": lambda k, o: max([k, o], key=k),
    "function in a local": lambda k, o: (lambda park=gosched: (park(), k, o))(),
}


@pytest.mark.parametrize("name", HOLDS)
def test_parking_leaves_reference_counts_alone(name):
    """The interpreter has copies of references in C: counting those in the frame would leak."""

    def counts():
        # Free-threaded, what an idle worker's goroutine made is freed by the collector, one level
        # of nesting at a time.
        for _ in range(4):
            gc.collect()
        return sys.getrefcount(holder), sys.getrefcount(token), sys.getrefcount(gosched)

    holder, token = Yields(), object()
    use = HOLDS[name]
    for task in [fork(use, holder, token) for _ in range(100)]:
        task.join()
    before = counts()
    tasks = [fork(use, holder, token) for _ in range(100)]
    for task in tasks:
        task.join()
    del task, tasks
    leaked = [now - then for now, then in zip(counts(), before, strict=True)]
    # One a park would be a hundred. A worker may still hold the last one that ended on it.
    assert [abs(n) < 50 for n in leaked] == [True] * 3, leaked
