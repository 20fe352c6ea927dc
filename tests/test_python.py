"""Python as it is, inside goroutines: whatever calls back may park, and what looks on sees no harm.

Most tests here let many goroutines park in the middle of something, collect garbage and overwrite
the stack below while they are parked, and then let them go on. What Python does without goroutines
is the oracle.
"""

# ruff: noqa: PT017

import contextlib
import contextvars
import copy
import cProfile
import decimal
import functools
import gc
import io
import json
import operator
import pdb
import pickle
import pstats
import re
import sys
import threading
import traceback
import weakref

import pytest

from gofer import Chan, Goroutine, Group, current, fork, gosched, run

pytestmark = pytest.mark.usefixtures("nothing_left")

DEBUG = hasattr(sys, "gettotalrefcount")
MANY = 12


def scrub(depth=60):
    """Overwrites the stack below with other frames and other data."""
    nested = []
    for _ in range(depth):
        nested = [nested]
    repr(nested)
    sorted(range(3), key=lambda n: json.dumps([n, "x" * 50]))


class Park:
    """`park()` waits for `park.release(tasks)`, and both return 7.

    release() waits until all tasks are parked here or have ended, looks at the garbage, and lets
    every parked one go on; again, until all have ended.
    """

    def __init__(self, between=lambda: None):
        self.gate = Chan()
        self.parked = []
        self.between = between

    def __call__(self):
        self.parked.append(1)
        return self.gate.recv()

    def release(self, tasks):
        while not all(task.done for task in tasks):
            while not all(task.done or task.state == "waiting" for task in tasks):
                gosched()
            waiting = sum(not task.done for task in tasks)
            if not waiting:
                break
            gc.collect()
            scrub()
            self.between()
            for _ in range(waiting):
                self.gate.send(7)
        return len(self.parked)


# --- whatever calls back ------------------------------------------------------------------------


class All:
    """Every special method parks."""

    def __init__(self, park, n=0):
        self.park, self.n = park, n
        park()

    def __repr__(self):
        return f"All {self.park()}"

    def __format__(self, spec):
        return f"{self.park()}{spec}"

    def __bytes__(self):
        return bytes([self.park()])

    def __len__(self):
        return self.park()

    def __bool__(self):
        return self.park() == 0

    def __hash__(self):
        return self.park()

    def __eq__(self, other):
        return self.park() == 7 and self.n == getattr(other, "n", None)

    def __lt__(self, other):
        self.park()
        return self.n < other.n

    def __iter__(self):
        self.park()
        return iter([self.park(), 1])

    def __contains__(self, item):
        return item == self.park()

    def __getitem__(self, key):
        return key, self.park()

    def __setitem__(self, key, value):
        self.n += self.park()

    def __delitem__(self, key):
        self.n -= self.park()

    def __call__(self, *args, **kwargs):
        return args, kwargs, self.park()

    def __enter__(self):
        return self.park()

    def __exit__(self, kind, error, trace):
        self.park()
        return kind is KeyError

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return name, self.park()

    def __add__(self, other):
        return self.park() + other

    def __radd__(self, other):
        return self.park() + other

    def __iadd__(self, other):
        self.n += self.park()
        return self

    def __neg__(self):
        return -self.park()

    def __matmul__(self, other):
        return self.park() * other

    def __index__(self):
        return self.park()

    def __float__(self):
        return float(self.park())

    def __dir__(self):
        return [str(self.park())]

    def __reduce__(self):
        return int, (self.park(),)

    def __deepcopy__(self, memo):
        return self.park()

    def __sizeof__(self):
        return self.park()

    def __round__(self, digits=None):
        return self.park()

    def __divmod__(self, other):
        return self.park(), other

    def __getstate__(self):
        return self.park()


class Descriptor:
    def __init__(self, park):
        self.park = park

    def __set_name__(self, owner, name):
        self.park()

    def __get__(self, instance, owner):
        return self.park()

    def __set__(self, instance, value):
        instance.__dict__["was set"] = value + self.park()

    def __delete__(self, instance):
        self.park()


class Steps:
    def __init__(self, park, n=3):
        self.park, self.n = park, n

    def __iter__(self):
        return self

    def __next__(self):
        self.park()
        self.n -= 1
        if self.n < 0:
            raise StopIteration
        return self.n


def sort_key(park):
    return sorted([3, 1, 2], key=lambda n: n * park())


def sort_in_place(park):
    items = [3, 1, 2]
    items.sort(key=lambda n: -n * park())
    return items


def sort_by_comparing(park):
    items = sorted([All(park, 2), All(park, 1), All(park, 3)])
    return [item.n for item in items]


def sort_cmp(park):
    return sorted([3, 1, 2], key=functools.cmp_to_key(lambda a, b: (a - b) * park()))


def max_and_min(park):
    return max([1, 3, 2], key=lambda n: n * park()), min([1, 3, 2], key=lambda n: n * park())


def getattr_of_a_class(park):
    thing = All(park)
    return thing.missing, getattr(thing, "other"), hasattr(thing, "more")  # noqa: B009


def attrgetter(park):
    return operator.attrgetter("a", "b")(All(park))


def properties(park):
    class Thing:
        @property
        def value(self):
            return park()

        @value.setter
        def value(self, value):
            self.stored = value + park()

        @functools.cached_property
        def cached(self):
            return park() + 1

    thing = Thing()
    thing.value = 3
    return thing.value, thing.stored, thing.cached, thing.cached


def descriptors(park):
    class Thing:
        field = Descriptor(park)

    thing = Thing()
    thing.field = 5
    del thing.field
    return thing.field, Thing.field, thing.__dict__


def getattribute(park):
    class Thing:
        def __getattribute__(self, name):
            return name, park()

    return Thing().anything


def metaclass(park):
    class Meta(type):
        @classmethod
        def __prepare__(cls, name, bases):
            park()
            return {"prepared": park()}

        def __new__(cls, *args):
            park()
            return super().__new__(cls, *args)

        def __call__(cls, *args):
            park()
            return super().__call__(*args)

        def __instancecheck__(cls, instance):
            return park() == 7

        def __subclasscheck__(cls, other):
            return park() == 7

    class Thing(metaclass=Meta):
        park()
        squares = [n * park() for n in range(3)]  # noqa: RUF012

        def __init_subclass__(cls):
            park()

    class Sub(Thing):
        park()

    return Thing.prepared, Thing.squares, isinstance(3, Thing), issubclass(int, Thing), Sub.__name__


def class_body(park):
    class Thing:
        a = park()
        b = a + park()

        def method(self, default=park()):  # noqa: B008
            return default

        c = [method(None), park()]  # noqa: RUF012

    return Thing.a, Thing.b, Thing.c


def decorators(park):
    def decorate(fn):
        park()
        return fn

    @decorate
    @decorate
    def decorated(n=park()):  # noqa: B008
        return n

    return decorated()


def generator(park):
    def count():
        try:
            for n in range(3):
                park()
                got = yield n
                if got:
                    yield got + park()
        finally:
            park()

    gen = count()
    first = next(gen), gen.send(5), list(gen)
    gen = count()
    next(gen)
    gen.close()
    gen = count()
    next(gen)
    try:
        gen.throw(KeyError("thrown"))
    except KeyError as error:
        return first, str(error)


def yield_from(park):
    def inner():
        park()
        yield 1
        park()
        return 2

    def outer():
        result = yield from inner()
        park()
        yield result

    return list(outer())


def half_used_generator(park):
    def count():
        try:
            yield park()
            yield park()
        finally:
            log.append(park())

    log = []
    gen = count()
    log.append(next(gen))
    del gen
    return log


def comprehensions(park):
    return (
        [park() + n for n in range(3)],
        {park() + n for n in range(3)},
        {n: park() for n in range(3)},
        list(park() + n for n in range(3)),  # noqa: C400
        [[park() for _ in range(2)] for _ in range(2)],
    )


def iteration(park):
    a, *rest = Steps(park)
    return a, rest, list(Steps(park)), tuple(Steps(park)), sum(Steps(park)), 0 in Steps(park)


def map_filter_zip(park):
    return (
        list(map(lambda n: n * park(), range(3))),  # noqa: C417
        list(filter(lambda n: park() and n, range(3))),
        list(zip(Steps(park), Steps(park), strict=True)),
        list(enumerate(Steps(park))),
        functools.reduce(lambda a, b: a + b + park(), range(4)),
        list(iter(iter(Steps(park)).__next__, 0)),
    )


def context_managers(park):
    @contextlib.contextmanager
    def managed():
        park()
        try:
            yield park()
        finally:
            park()

    log = []
    with All(park) as a, managed() as b, contextlib.ExitStack() as stack:
        stack.callback(park)
        stack.enter_context(managed())
        log.append((a, b))
    with All(park):
        raise KeyError
    with contextlib.suppress(ValueError), managed():
        park()
        raise ValueError
    return log


def exceptions(park):
    class Custom(Exception):
        def __init__(self, *args):
            park()
            super().__init__(*args)

        def __str__(self):
            return f"custom {park()}"

    log = []
    try:
        try:
            raise Custom(1)
        except Custom as error:
            park()
            log.append(str(error))
            raise ValueError from error
        finally:
            log.append(park())
    except ValueError as error:
        park()
        log.append(type(error.__cause__).__name__)
    else:
        log.append("no")
    return log


def exception_groups(park):
    log = []
    try:
        raise ExceptionGroup("", [ValueError(park()), KeyError(1)])
    except* ValueError as group:
        log.append(park())
        log += map(str, group.exceptions)
    except* KeyError:
        log.append(park())
    return log


def cached(park):
    @functools.lru_cache(maxsize=2)
    def square(n):
        return n * park()

    @functools.cache
    def fib(n):
        park()
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    return [square(n) for n in (1, 2, 1, 3, 2)], fib(6)


def single_dispatch(park):
    @functools.singledispatch
    def kind(_):
        return "object", park()

    @kind.register
    def _(n: int):
        return "int", park() + n

    return kind(1), kind("")


def partials(park):
    def gather(*args, **kwargs):
        return args, kwargs, park()

    return functools.partial(gather, [1], a=[2])([3], b=[4])


def hashing(park):
    table = {All(park, 1): "a"}
    table[All(park, 2)] = "b"
    return len(table), len({All(park), All(park)}), All(park, 1) in table


def comparing(park):
    items = [All(park, n) for n in range(3)]
    return items.index(All(park, 1)), items.count(All(park, 2)), All(park, 5) in items


def containers(park):
    thing = All(park)
    thing[1] = 2
    del thing[1]
    return thing[1], thing[1:2], 7 in thing, len(thing), list(thing), bool(thing), [*thing], thing.n


def arithmetic(park):
    thing = All(park)
    result = thing + 1, 1 + thing, -thing, thing @ 3, divmod(thing, 2), round(thing)
    thing += 1
    return result, thing.n, sum([All(park)], 3), range(10)[thing], float(thing), hex(thing)


def texts(park):
    thing = All(park)
    return (
        f"{thing}|{thing!r}|{thing:>3}",
        "%s %r" % (thing, thing),  # noqa: UP031
        "{} {!r}".format(thing, thing),  # noqa: UP032
        str(thing),
        bytes(thing),
        repr([thing, {1: thing}]),
        ascii(thing),
        dir(thing),
    )


def printing(park):
    out = io.StringIO()
    print(All(park), All(park), file=out)
    return out.getvalue()


def writing_to_what_parks(park):
    class Out:
        def write(self, text):
            park()
            log.append(text)

    log = []
    print("a", "b", file=Out())
    return "".join(log)


def reading_what_parks(park):
    class Raw(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            if not parts:
                return 0
            park()
            part = parts.pop()
            buffer[: len(part)] = part
            return len(part)

    parts = [b"two\n", b"one\n"]
    with io.TextIOWrapper(io.BufferedReader(Raw())) as text:
        return text.readlines()


def regular_expressions(park):
    return re.sub("[a-c]", lambda match: match[0] * park(), "abcd")


def encoding(park):
    class Encoder(json.JSONEncoder):
        def default(self, thing):
            return park()

    text = json.dumps({"a": [1, {"b": object()}]}, cls=Encoder)
    return text, json.loads(text, object_hook=lambda d: (park(), d)[1])


def pickling(park):
    return pickle.loads(pickle.dumps([All(park), All(park)])), copy.deepcopy([All(park)])


def calling(park):
    def gather(a, /, b=0, *args, c, **kwargs):
        return a, b, args, c, kwargs, park()

    return (
        All(park)(1, *Steps(park), key=park(), **{k: park() for k in "ab"}),
        gather(park(), park(), *[park()], c=park(), **{k: park() for k in "de"}),
        type("Made", (All,), {"park": None})(park).n,
    )


def matching(park):
    class Point:
        __match_args__ = ("x", "y")

        @property
        def x(self):
            return park()

        @property
        def y(self):
            return park() + 1

    match Point():
        case Point(0, 0):
            return "zero"
        case Point(7, y):
            return y


def coroutines(park):
    class Awaitable:
        def __await__(self):
            yield park()
            return park()

    class Manager:
        async def __aenter__(self):
            return park()

        async def __aexit__(self, *args):
            park()

    class Items:
        def __init__(self):
            self.n = 2

        def __aiter__(self):
            return self

        async def __anext__(self):
            park()
            self.n -= 1
            if self.n < 0:
                raise StopAsyncIteration
            return self.n

    async def agen():
        for n in range(2):
            park()
            yield n

    async def main():
        async with Manager() as entered:
            items = [n async for n in Items()] + [n async for n in agen()]
            return entered, await Awaitable(), items

    coroutine, steps = main(), []
    while True:
        try:
            steps.append(coroutine.send(None))
        except StopIteration as stop:
            return steps, stop.value


def recursion(park):
    def down(n, *args):
        return down(n - 1, [n], *args[:2]) if n else (park(), args)

    return down(30)


def recursion_through_c(park):
    class Nested:
        def __init__(self, n):
            self.n = n

        def __repr__(self):
            return f"<{[Nested(self.n - 1)] if self.n else park()}>"

    return repr(Nested(12))


def big_frames(park):
    names = [f"v{n}" for n in range(300)]
    lines = [f"    {name} = park() if {n % 100 == 0} else {n}" for n, name in enumerate(names)]
    source = "\n".join(["def big(park):", *lines, f"    return [{', '.join(names)}]"])
    namespace = {}
    exec(source, namespace)
    return sum(namespace["big"](park))


def evaluating(park):
    namespace = {"park": park}
    exec("value = [park() for _ in range(2)]", namespace)
    return namespace["value"], eval("park() + 1", {"park": park})


def destructor(park):
    class Thing:
        def __del__(self):
            log.append(park())

    log = []
    thing = Thing()
    del thing
    holder = [Thing(), [Thing()]]
    holder[0] = None
    holder.clear()
    return log


def destructor_in_a_dead_frame(park):
    class Thing:
        def __del__(self):
            log.append(park())

    def frame():
        thing = Thing()
        return thing is not None

    log = []
    return frame(), log


def weakref_callback(park):
    class Thing:
        pass

    log = []
    thing = Thing()
    ref = weakref.ref(thing, lambda _: log.append(park()))
    final = weakref.finalize(thing, lambda: log.append(park() + 1))
    del thing
    return log, ref(), final.alive


def contexts(park):
    var = contextvars.ContextVar("var", default=0)

    def inside():
        var.set(park())
        park()
        return var.get()

    result = contextvars.copy_context().run(inside), var.get()
    token = var.set(3)
    park()
    var.reset(token)
    return result, var.get()


def decimals(park):
    with decimal.localcontext() as context:
        context.prec = 3 + park() % 2
        first = decimal.Decimal(1) / 7
        park()
        second = decimal.Decimal(1) / 7
    park()
    return first, second, decimal.Decimal(1) / 7


def temporary_values(park):
    return [[1], *[park()], [2]], ("a" * 1000, park(), ["b" * 1000]), [1, 2, 3][park() - 6]


def closures(park):
    def counter():
        n = 0

        def up():
            nonlocal n
            n += park()
            return n

        return up

    up, other = counter(), counter()
    return up(), up(), other()


def super_calls(park):
    class A:
        def __init__(self):
            self.log = [park()]

        def method(self):
            self.log.append(park())

    class B(A):
        def __init__(self):
            super().__init__()
            self.log.append(park())

        def method(self):
            super().method()
            self.log.append("B")

    b = B()
    b.method()
    return b.log


def user_containers(park):
    class Default(dict):
        def __missing__(self, key):
            return key, park()

    class Name(str):
        __slots__ = ()

        def __eq__(self, other):
            park()
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    table = {Name("a"): 1}
    return Default()["key"], table[Name("a")], "%(x)s" % Default()  # noqa: UP031


OPERATIONS = [
    sort_key,
    sort_in_place,
    sort_by_comparing,
    sort_cmp,
    max_and_min,
    getattr_of_a_class,
    attrgetter,
    properties,
    descriptors,
    getattribute,
    metaclass,
    class_body,
    decorators,
    generator,
    yield_from,
    half_used_generator,
    comprehensions,
    iteration,
    map_filter_zip,
    context_managers,
    exceptions,
    exception_groups,
    cached,
    single_dispatch,
    partials,
    hashing,
    comparing,
    containers,
    arithmetic,
    texts,
    printing,
    writing_to_what_parks,
    reading_what_parks,
    regular_expressions,
    encoding,
    pickling,
    calling,
    matching,
    coroutines,
    recursion,
    recursion_through_c,
    big_frames,
    evaluating,
    destructor,
    destructor_in_a_dead_frame,
    weakref_callback,
    contexts,
    decimals,
    temporary_values,
    closures,
    super_calls,
    user_containers,
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_parking_in(operation):
    expected = operation(lambda: 7)
    park = Park()
    tasks = [fork(operation, park) for _ in range(MANY)]
    assert park.release(tasks) >= MANY
    assert [task.join() for task in tasks] == [expected] * MANY


def test_parking_everywhere_at_once(rng):
    """All of them mixed, let go on in any order, with collections in between."""
    gates = []

    def park():
        gate = Chan()
        gates.append(gate)
        return gate.recv()

    expected = {operation: operation(lambda: 7) for operation in OPERATIONS}
    started, gc_was = [], gc.get_threshold()
    gc.set_threshold(50)
    try:
        for _ in range(4):
            for operation in rng.sample(OPERATIONS, len(OPERATIONS)):
                started.append((operation, fork(operation, park)))  # noqa: PERF401
        while not all(task.done for _, task in started):
            some = rng.sample(range(len(gates)), len(gates) * 3 // 4) if len(gates) > 8 else None
            chosen = [gates[n] for n in some] if some else gates[:]
            for gate in chosen:
                gates.remove(gate)
                gate.send(7)
            if rng.random() < 0.2:
                gc.collect()
            gosched()
    finally:
        gc.set_threshold(*gc_was)
    for operation, task in started:
        assert task.join() == expected[operation], operation.__name__


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_unwinding_in(operation):
    """Whoever is parked in it when run ends is unwound from there."""
    seen = []

    def body():
        try:
            operation(Chan().recv)
        finally:
            seen.append(1)

    def main():
        tasks = [fork(body) for _ in range(3)]
        while not all(task.state == "waiting" for task in tasks):
            gosched()

    hook = sys.unraisablehook
    sys.unraisablehook = lambda args: None  # a destructor can not let GoroutineExit through
    try:
        run(main)
        gc.collect()
    finally:
        sys.unraisablehook = hook
    assert seen == [1, 1, 1]


# --- two at one object --------------------------------------------------------------------------


def test_a_list_can_be_used_while_another_sorts_it():
    """On a free-threaded build the sort holds the list's lock: it must give it up while parked."""
    items, gate, log = [3, 1, 2], Chan(), []

    def sort():
        try:
            items.sort(key=lambda n: (gate.recv(), n)[1])
        except ValueError as error:
            log.append(str(error))

    sorter = fork(sort)
    while sorter.state != "waiting":
        gosched()
    other = fork(lambda: (items.append(9), len(items)))
    for _ in range(3):
        gate.send(None)
    sorter.join()
    other.join()
    assert log == ["list modified during sort"] or sorted(items) == [1, 2, 3, 9]


def test_a_generator_that_runs_can_not_be_entered():
    gate = Chan()

    def count():
        while True:
            yield gate.recv()

    gen = count()
    task = fork(next, gen)
    while task.state != "waiting":
        gosched()
    with pytest.raises(ValueError, match="already executing"):
        next(gen)
    gate.send(1)
    assert task.join() == 1


@pytest.mark.usefixtures("one_worker")
def test_a_generator_can_go_from_one_to_another():
    gate = Chan()

    def count():
        for n in range(10):
            gate.recv()
            yield n, current().id

    gen = count()
    ids = []
    for n in range(10):
        task = fork(next, gen)
        gate.send(None)
        value, who = task.join()
        assert value == n
        ids.append(who)
    assert len(set(ids)) == 10


# --- exceptions ---------------------------------------------------------------------------------


def test_the_exception_in_flight_is_its_own():
    def body(n):
        try:
            raise KeyError(n)
        except KeyError as error:
            for _ in range(4):
                park()
                assert sys.exc_info()[1] is error
            try:
                raise
            except KeyError as again:
                assert again is error
        assert sys.exc_info() == (None, None, None)
        return n

    park = Park(between=lambda: assert_no_exception())
    tasks = [fork(body, n) for n in range(MANY)]
    park.release(tasks)
    assert [task.join() for task in tasks] == list(range(MANY))


def assert_no_exception():
    assert sys.exc_info() == (None, None, None)


def test_an_exception_has_no_context_of_another():
    gate = Chan()

    def holder():
        try:
            raise KeyError
        except KeyError:
            gate.recv()

    def raiser():
        raise ValueError

    task = fork(holder)
    while task.state != "waiting":
        gosched()
    try:
        raise LookupError
    except LookupError:
        error = fork(raiser).exception()
        assert error.__context__ is None
        assert fork(sys.exc_info).join() == (None, None, None)
    gate.send(None)
    task.join()


def test_a_bare_raise_has_nothing_to_raise():
    def body():
        raise

    try:
        raise KeyError
    except KeyError:
        assert type(fork(body).exception()) is RuntimeError


def test_exception_in_a_generator_that_is_parked():
    def count():
        try:
            raise KeyError("inner")
        except KeyError:
            yield park()
            yield str(sys.exc_info()[1])

    def body():
        try:
            raise ValueError
        except ValueError as error:
            result = list(count())
            assert sys.exc_info()[1] is error
            return result

    park = Park()
    tasks = [fork(body) for _ in range(MANY)]
    park.release(tasks)
    assert [task.join() for task in tasks] == [[7, "'inner'"]] * MANY


def test_tracebacks_outlive_their_goroutine():
    def fail(n):
        local = [n]
        park()
        raise KeyError(local)

    park = Park()
    tasks = [fork(fail, n) for n in range(MANY)]
    park.release(tasks)
    errors = [task.exception() for task in tasks]
    del tasks
    gc.collect()
    scrub()
    for n, error in enumerate(errors):
        text = "".join(traceback.format_exception(error))
        assert "in fail" in text
        assert text.endswith(f"KeyError: [{n}]\n")
        last = list(traceback.walk_tb(error.__traceback__))[-1][0]
        assert last.f_locals["local"] == [n]


# --- frames -------------------------------------------------------------------------------------


def names_from(frame):
    names = []
    while frame is not None:
        names.append(frame.f_code.co_name)
        assert frame.f_lineno is None or frame.f_lineno > 0
        frame = frame.f_back
    return names


def test_frames_of_parked_goroutines_can_be_walked():
    frames = []

    def leaf(n):
        frames.append(sys._getframe())
        park()
        return n

    def key(n):
        return max([n], key=lambda m: leaf(m))

    def top(n):
        return sorted([n], key=key)

    def look():
        assert [names_from(frame) for frame in frames] == [
            ["leaf", "<lambda>", "key", "top"]
        ] * MANY
        assert [frame.f_locals["n"] for frame in frames] == list(range(MANY))
        assert [frame.f_back.f_back.f_back.f_locals["n"] for frame in frames] == list(range(MANY))

    park = Park(between=look)
    tasks = []
    for n in range(MANY):
        tasks.append(fork(top, n))
        while tasks[-1].state != "waiting":
            gosched()
    park.release(tasks)
    assert [task.join() for task in tasks] == [[n] for n in range(MANY)]


def test_frames_of_generators_can_be_walked():
    gens, gate = [], Chan()

    def count():
        yield gate.recv()

    def drive():
        gen = count()
        gens.append(gen)
        return [next(gen) for _ in range(1)]

    def outer():
        return functools.reduce(lambda a, b: drive(), [1, 2])

    task = fork(outer)
    while task.state != "waiting":
        gosched()
    for _ in range(3):
        scrub()
        names = names_from(gens[0].gi_frame)
        assert names[0] == "count"
        assert names[-3:] == ["drive", "<lambda>", "outer"]
        assert gens[0].gi_running
        gc.collect()
    gate.send(7)
    assert task.join() == [7]


def test_a_parked_frame_can_not_be_cleared():
    frames, gate = [], Chan()

    def body():
        local = [1, 2, 3]
        frames.append(sys._getframe())
        gate.recv()
        return local

    task = fork(body)
    while task.state != "waiting":
        gosched()
    with pytest.raises(RuntimeError):
        frames[0].clear()
    assert frames[0].f_locals["local"] == [1, 2, 3]
    gate.send(None)
    assert task.join() == [1, 2, 3]


def test_frames_outlive_their_goroutine():
    class Thing:
        pass

    frames, refs = [], []

    def body():
        thing = Thing()
        refs.append(weakref.ref(thing))
        frames.append(sys._getframe())
        park()

    park = Park()
    tasks = [fork(body) for _ in range(MANY)]
    park.release(tasks)
    gc.collect()
    scrub()
    alive = {id(ref()) for ref in refs}
    assert {id(frame.f_locals["thing"]) for frame in frames} == alive
    for frame in frames:
        assert names_from(frame) == ["body"]
    frames.clear()
    tasks.clear()
    del frame
    gc.collect()
    assert [ref() for ref in refs] == [None] * MANY


def test_locals_of_parked_goroutines_live():
    class Thing:
        pass

    refs = []

    def body():
        thing = Thing()
        refs.append(weakref.ref(thing))
        park()
        assert refs
        return type(thing)

    def look():
        assert all(ref() is not None for ref in refs)

    park = Park(between=look)
    tasks = [fork(body) for _ in range(MANY)]
    park.release(tasks)
    del tasks
    gc.collect()
    assert all(ref() is None for ref in refs)


def test_current_frames_can_be_walked_while_others_are_parked():
    def body():
        return sorted([1], key=lambda n: park())

    def look():
        frames = sys._current_frames()
        assert frames[threading.get_ident()].f_code.co_name == "look"
        for frame in frames.values():
            assert names_from(frame)

    park = Park(between=look)
    tasks = [fork(body) for _ in range(MANY)]
    park.release(tasks)


def test_a_stack_ends_at_the_function_of_the_goroutine():
    def inner():
        return [entry.name for entry in traceback.extract_stack()]

    def outer():
        gosched()
        return inner()

    assert fork(outer).join() == ["outer", "inner"]


def test_functions_redefined_while_goroutines_are_in_them():
    """A reload drops a function that a parked goroutine is still in."""
    source = """
def work(self, park, n):
    kept = (n, "a" * 3, {n}.0, "x%d")
    park()
    return [kept, n * {n}, "value %d" % n, sorted([3, {n}, 1]), (lambda m: m + n)(1)]
"""

    def define(n):
        namespace = {}
        exec(source.replace("{n}", str(1000 + n)), namespace)
        return namespace["work"]

    classes = [type(f"Class{n}", (), {"work": define(n)}) for n in range(100)]
    expected = [cls().work(lambda: 7, n) for n, cls in enumerate(classes)]
    functions = [weakref.ref(cls.work) for cls in classes]
    park = Park()
    tasks = [fork(lambda cls=cls, n=n: cls().work(park, n)) for n, cls in enumerate(classes)]
    while not all(task.state == "waiting" for task in tasks):
        gosched()
    for cls in classes:
        del cls.work
    classes.clear()
    del cls
    gc.collect()
    gc.collect()
    junk = [define(5000 + n) for n in range(200)]
    park.release(tasks)
    assert [task.join() for task in tasks] == expected
    assert len(junk) == 200
    del tasks
    gc.collect()
    unused = weakref.ref(define(0))
    gc.collect()
    if unused() is None:  # free-threaded 3.13 keeps it for ever once there was a second thread
        assert [ref() for ref in functions if ref() is not None] == []


def test_a_function_lives_until_its_goroutine_has_run(program):
    # In a process of its own: here other threads have used the library, and then a worker that is
    # busy for long, as with collecting, is relieved of what it has not started.
    result = program(
        """
        import gc, weakref
        from gofer import *

        log, functions = [], []

        def start(n):
            def function():
                log.append(n)

            functions.append(weakref.ref(function))
            return go(function)

        gs = [start(n) for n in range(100)]
        gc.collect()
        gc.collect()
        junk = [(lambda n=n: n) for n in range(1000)]
        assert log == []
        for g in gs:
            g.join()
        assert log == list(range(100))
        assert len(junk) == 1000
        del g, gs
        gc.collect()
        assert [ref() for ref in functions if ref() is not None] == []
        print("done")
        """,
        GOFER_MAXPROCS="1",
    )
    assert result == (0, "done\n", "")


# --- recursion ----------------------------------------------------------------------------------


def test_each_has_the_whole_recursion_limit():
    deep = sys.getrecursionlimit() * 3 // 4

    def down(n):
        return 1 + down(n - 1) if n else park() - 7

    park = Park()
    tasks = [fork(down, deep) for _ in range(MANY)]
    park.release(tasks)
    assert [task.join() for task in tasks] == [deep] * MANY


def test_recursion_to_the_limit():
    def for_ever():
        return for_ever()

    def body():
        for _ in range(3):
            with pytest.raises(RecursionError):
                for_ever()
            park()
        return "ok"

    park = Park()
    tasks = [fork(body) for _ in range(MANY)]
    park.release(tasks)
    assert [task.join() for task in tasks] == ["ok"] * MANY


def test_recursion_through_c_to_the_limit():
    class Endless:
        def __repr__(self):
            return repr([self.__class__()])

    def body():
        for _ in range(2):
            with pytest.raises(RecursionError):
                repr(Endless())
            park()
        return "ok"

    park = Park()
    tasks = [fork(body) for _ in range(4)]
    park.release(tasks)
    assert [task.join() for task in tasks] == ["ok"] * 4


def test_deep_ones_do_not_take_from_main():
    deep = sys.getrecursionlimit() // 2

    def down(n):
        return down(n - 1) if n else park()

    def look():
        def here(n):
            return here(n - 1) if n else 0

        here(deep // 2)

    park = Park(between=look)
    tasks = [fork(down, deep) for _ in range(3)]
    park.release(tasks)


def test_starting_one_deep_down():
    """What is started deep in a recursion starts at the bottom."""

    def down(n):
        return down(n - 1) if n else fork(depth).join()

    def depth():
        return len(traceback.extract_stack())

    assert down(200) == 1


# --- destructors --------------------------------------------------------------------------------


def test_parking_in_a_chain_of_destructors():
    """Long chains are taken apart by the trashcan, which must belong to the goroutine."""
    log = []

    class Link:
        def __init__(self, next_one):
            self.next = next_one

        def __del__(self):
            log.append(1)
            gosched()

    def body():
        chain = None
        for _ in range(1000):
            chain = Link((chain,))
        del chain

    with Group() as g:
        for _ in range(5):
            g.go(body)
    gc.collect()
    assert len(log) == 5000


def test_destructors_of_another_threads_objects():
    log, done = [], []

    class Thing:
        def __del__(self):
            log.append(1)
            gosched()

    box = [[Thing() for _ in range(20)] for _ in range(10)]

    def drop():
        box.clear()
        done.append(1)

    def spin():
        while not done:
            gosched()

    thread = threading.Thread(target=drop)
    with Group() as g:
        for _ in range(3):
            g.go(spin)
        thread.start()
    thread.join()
    while len(log) < 200:
        gosched()
        gc.collect()
    assert len(log) == 200


def test_exceptions_in_destructors_and_callbacks(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: seen.append(type(args.exc_value)))

    class Thing:
        def __del__(self):
            park()
            raise KeyError

    def body():
        thing = Thing()
        ref = weakref.ref(thing, lambda _: (park(), 1 / 0))
        del thing
        return ref()

    park = Park()
    tasks = [fork(body) for _ in range(MANY)]
    park.release(tasks)
    assert [task.join() for task in tasks] == [None] * MANY
    assert sorted(seen, key=str) == sorted([KeyError, ZeroDivisionError] * MANY, key=str)


# --- contexts -----------------------------------------------------------------------------------


def test_context_variables_stay_with_their_goroutine():
    var = contextvars.ContextVar("var", default=None)

    def body(n):
        var.set(n)
        park()
        with contextlib.ExitStack() as stack:
            token = var.set(-n)
            stack.callback(var.reset, token)
            park()
            assert var.get() == -n
        park()
        return var.get()

    def look():
        assert var.get() is None

    park = Park(between=look)
    tasks = [fork(body, n) for n in range(MANY)]
    park.release(tasks)
    assert [task.join() for task in tasks] == list(range(MANY))


def test_a_context_that_is_entered_can_not_be_entered_again():
    context, gate = contextvars.copy_context(), Chan()
    task = fork(context.run, gate.recv)
    while task.state != "waiting":
        gosched()
    with pytest.raises(RuntimeError):
        context.run(int)
    gate.send(3)
    assert task.join() == 3
    assert context.run(int) == 0


def test_decimal_contexts_stay_with_their_goroutine():
    def body(n):
        with decimal.localcontext() as context:
            context.prec = n
            park()
            return str(decimal.Decimal(1) / 3)

    park = Park(between=lambda: decimal.Decimal(1) / 3)
    tasks = [fork(body, n) for n in range(1, MANY)]
    park.release(tasks)
    assert [task.join() for task in tasks] == ["0." + "3" * n for n in range(1, MANY)]


# --- debuggers and profilers ----------------------------------------------------------------------


def leaf(park):
    value = [1]
    park()
    return value


def traced(park):
    return [leaf(park) for _ in range(2)]


@pytest.mark.usefixtures("one_worker")
def test_settrace_sees_what_it_runs():
    def trace(frame, event, arg):
        events.append((frame.f_code.co_name, event))
        return trace

    def body():
        sys.settrace(trace)
        try:
            return traced(lambda: gosched())
        finally:
            sys.settrace(None)

    events = []
    old = sys.gettrace()
    try:
        assert fork(body).join() == [[1], [1]]
    finally:
        sys.settrace(old)
    assert ("leaf", "call") in events
    assert ("leaf", "line") in events
    assert ("leaf", "return") in events


@pytest.mark.usefixtures("one_worker")
def test_settrace_after_a_killed_goroutine_was_served(parked):
    """Its GoroutineExit was on its way, and had to be taken back when it ended first."""

    def main():
        channel = Chan()
        task = fork(channel.recv)
        parked(task)
        channel.send(1)

    def trace(frame, event, arg):
        events.append(event)
        return trace

    def body():
        sys.settrace(trace)
        try:
            return traced(lambda: None)
        finally:
            sys.settrace(None)

    events = []
    run(main)
    old = sys.gettrace()
    try:
        assert fork(body).join() == [[1], [1]]
    finally:
        sys.settrace(old)
    assert "line" in events


@pytest.mark.usefixtures("one_worker")
def test_a_trace_function_may_park():
    def trace(frame, event, arg):
        if frame.f_code in (leaf.__code__, traced.__code__):
            park()
            events.append(event)
            return trace
        return None

    def body():
        sys.settrace(trace)
        try:
            return traced(lambda: None)
        finally:
            sys.settrace(None)

    events = []
    old = sys.gettrace()
    park = Park()
    try:
        task = fork(body)
        park.release([task])
        assert task.join() == [[1], [1]]
    finally:
        sys.settrace(old)
    assert {"call", "line", "return"} <= set(events)


@pytest.mark.usefixtures("one_worker")
def test_setprofile_sees_what_it_runs():
    def profile(frame, event, arg):
        events.append((frame.f_code.co_name, event))

    def body():
        sys.setprofile(profile)
        try:
            return traced(lambda: gosched())
        finally:
            sys.setprofile(None)

    events = []
    old = sys.getprofile()
    try:
        assert fork(body).join() == [[1], [1]]
    finally:
        sys.setprofile(old)
    assert ("leaf", "call") in events
    assert ("leaf", "return") in events


@pytest.mark.usefixtures("one_worker")
def test_cprofile():
    profile = cProfile.Profile()
    with Group() as g:
        for _ in range(3):
            g.go(traced, gosched)
        profile.enable()
        gosched()
        tasks = [g.go(traced, gosched) for _ in range(MANY)]
        for task in tasks:
            task.join()
        profile.disable()
        for _ in range(3):
            g.go(traced, gosched)
    text = io.StringIO()
    pstats.Stats(profile, stream=text).print_stats()
    assert "leaf" in text.getvalue()


def test_pdb(monkeypatch):
    def body():
        debugger = pdb.Pdb(stdin=io.StringIO(commands), stdout=out, nosigint=True, readrc=False)
        debugger.use_rawinput = False
        debugger.set_trace()
        value = 41
        return value + 1

    commands, out = "next\nnext\np value\nwhere\ncontinue\n", io.StringIO()
    old = sys.gettrace()
    try:
        assert fork(body).join() == 42
    finally:
        sys.settrace(old)
    assert "41" in out.getvalue()
    assert "return value + 1" in out.getvalue()


def test_printing_a_stack_inside_and_outside():
    out, gate = io.StringIO(), Chan()

    def body():
        traceback.print_stack(file=out)
        gate.recv()

    task = fork(body)
    while task.state != "waiting":
        gosched()
    assert "in body" in out.getvalue()
    task.cancel()
    Goroutine.join(task)


OBSERVED = """
    import cProfile, faulthandler, gc, io, pstats, sys, tempfile, threading
    from gofer import *

    N = 40
    gate = Chan()

    def leaf(n):
        kept = [n]
        gate.recv()
        return kept

    def generator(n):
        yield sorted([n], key=leaf)

    def top(n):
        return [x for x in generator(n)]

    def start():
        tasks = [fork(top, n) for n in range(N)]
        while not all(task.state == "waiting" for task in tasks):
            gosched()
        return tasks

    def stop(tasks):
        for _ in tasks:
            gate.send(None)
        assert [task.join() for task in tasks] == [[[n]] for n in range(N)]

    def watch(*args):
        seen.append(args[1] if len(args) > 1 else None)
        return watch

    seen = []
    {body}
    gc.collect()
    print("survived")
"""

TOGGLES = {
    "settrace on while parked": """
    tasks = start()
    sys.settrace(watch)
    gosched()
    stop(tasks)
    sys.settrace(None)
    """,
    "settrace off while parked": """
    sys.settrace(watch)
    tasks = start()
    sys.settrace(None)
    stop(tasks)
    assert seen
    """,
    "setprofile on while parked": """
    tasks = start()
    sys.setprofile(watch)
    stop(tasks)
    sys.setprofile(None)
    """,
    "setprofile off while parked": """
    sys.setprofile(watch)
    tasks = start()
    sys.setprofile(None)
    stop(tasks)
    assert seen
    """,
    "cProfile toggled while parked": """
    profile = cProfile.Profile()
    tasks = start()
    profile.enable()
    stop(tasks)
    tasks = start()
    profile.disable()
    stop(tasks)
    pstats.Stats(profile, stream=io.StringIO()).print_stats()
    """,
    "monitoring toggled while parked": """
    M = sys.monitoring
    E = M.events
    M.use_tool_id(3, "test")
    everything = E.PY_START | E.PY_RETURN | E.LINE | E.CALL | E.INSTRUCTION | E.PY_YIELD
    for n in range(30):
        if everything & 1 << n:
            M.register_callback(3, 1 << n, watch)
    tasks = start()
    M.set_events(3, everything)
    stop(tasks)
    tasks = start()
    M.set_events(3, 0)
    stop(tasks)
    for n in range(6):
        tasks = start()
        M.set_local_events(3, leaf.__code__, E.LINE | E.INSTRUCTION if n % 2 else 0)
        stop(tasks)
        M.restart_events()
    M.free_tool_id(3)
    assert seen
    """,
    "all threads traced by another": """
    stopped = []
    def flip():
        while not stopped:
            threading.settrace_all_threads(watch)
            threading.settrace_all_threads(None)
    thread = threading.Thread(target=flip)
    thread.start()
    for _ in range(20):
        tasks = start()
        gosched()
        stop(tasks)
    stopped.append(1)
    thread.join()
    """,
}
LOOKS = {
    "faulthandler": """
    tasks = start()
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        assert "File" in file.read()
    stop(tasks)
    """,
    "frames watched by a thread": """
    stopped = []
    def spy():
        while not stopped:
            for frame in list(sys._current_frames().values()):
                while frame is not None:
                    frame.f_lineno, frame.f_code.co_name
                    frame = frame.f_back
                    seen.append(1)
            with open("/dev/null", "w") as null:
                faulthandler.dump_traceback(null, all_threads=True)
    thread = threading.Thread(target=spy)
    thread.start()
    for _ in range(50):
        tasks = start()
        gosched()
        stop(tasks)
    while not seen:
        gosched()
    stopped.append(1)
    thread.join()
    """,
    "a monitoring callback that parks": """
    M = sys.monitoring
    M.use_tool_id(3, "test")
    def line(*args):
        seen.append(1)
        if len(seen) % 3 == 0:
            gosched()
    M.register_callback(3, M.events.LINE, line)
    M.set_local_events(3, leaf.__code__, M.events.LINE)
    for _ in range(5):
        stop(start())
    M.set_local_events(3, leaf.__code__, 0)
    M.free_tool_id(3)
    assert seen
    """,
    "a profile function that parks": """
    def profile(frame, event, arg):
        seen.append(event)
        if len(seen) % 5 == 0 and frame.f_code is leaf.__code__:
            gosched()
    tasks = start()
    stop(tasks)
    sys.setprofile(profile)
    assert fork(int).join() == 0
    tasks = start()
    stop(tasks)
    sys.setprofile(None)
    """,
}


def needs(name):
    if "monitoring" in name and not hasattr(sys, "monitoring"):
        pytest.skip("no sys.monitoring before 3.12")
    if "all threads" in name and not hasattr(threading, "settrace_all_threads"):
        pytest.skip("no settrace_all_threads before 3.12")
    if DEBUG and sys.version_info >= (3, 12) and name in TOGGLES and "on while" not in name:
        pytest.skip("CPython asserts that what runs in instrumented code is a thread's")


def indent(body):
    return body.strip("\n ").replace("\n    ", "\n" + " " * 4)


@pytest.mark.parametrize("name", TOGGLES)
def test_toggled(program, name):
    needs(name)
    assert program(OBSERVED.format(body=indent(TOGGLES[name]))) == (0, "survived\n", "")


@pytest.mark.parametrize("name", LOOKS)
def test_watched(program, name):
    needs(name)
    assert program(OBSERVED.format(body=indent(LOOKS[name]))) == (0, "survived\n", "")


# --- modules ------------------------------------------------------------------------------------


def test_importing_a_module_that_parks(tmp_path, monkeypatch):
    (tmp_path / "parking_module.py").write_text(
        "from gofer import gosched\n"
        "values = []\n"
        "for n in range(5):\n"
        "    gosched()\n"
        "    values.append(n)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def body():
        import parking_module

        return parking_module.values

    busy = [fork(lambda: [gosched() for _ in range(20)]) for _ in range(5)]
    assert fork(body).join() == list(range(5))
    for task in busy:
        task.join()
    del sys.modules["parking_module"]


def test_c_code_with_a_big_frame_below():
    """Code that uses much of the C stack runs in a goroutine as anywhere."""

    def body():
        nested = json.loads("[" * 300 + "]" * 300)
        match = re.match(r"(?:a|b|ab)*c", "ab" * 2000 + "c")
        park()
        return len(json.dumps(nested)), match is not None

    park = Park()
    tasks = [fork(body) for _ in range(MANY)]
    park.release(tasks)
    assert [task.join() for task in tasks] == [(600, True)] * MANY
