"""What the standard library calls back."""

import contextvars
import copy
import decimal
import functools
import io
import json
import pickle
import re

from shared.operations import All, Steps


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


def map_filter_zip(park):
    return (
        list(map(lambda n: n * park(), range(3))),  # noqa: C417
        list(filter(lambda n: park() and n, range(3))),
        list(zip(Steps(park), Steps(park), strict=True)),
        list(enumerate(Steps(park))),
        functools.reduce(lambda a, b: a + b + park(), range(4)),
        list(iter(iter(Steps(park)).__next__, 0)),
    )


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


OPERATIONS = [
    sort_key,
    sort_in_place,
    sort_by_comparing,
    sort_cmp,
    max_and_min,
    map_filter_zip,
    cached,
    single_dispatch,
    partials,
    printing,
    writing_to_what_parks,
    reading_what_parks,
    regular_expressions,
    encoding,
    pickling,
    contexts,
    decimals,
]
