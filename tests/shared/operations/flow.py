"""What functions do: generators, comprehensions, exceptions, coroutines, recursion."""

import contextlib

from shared.operations import All, Steps


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


OPERATIONS = [
    decorators,
    generator,
    yield_from,
    half_used_generator,
    comprehensions,
    iteration,
    context_managers,
    exceptions,
    exception_groups,
    coroutines,
    recursion,
    recursion_through_c,
    big_frames,
    evaluating,
    closures,
]
