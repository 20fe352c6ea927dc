"""What classes and objects call: special methods, descriptors, metaclasses, destructors."""

import functools
import operator
import weakref

from shared.operations import All, Steps


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


def temporary_values(park):
    return [[1], *[park()], [2]], ("a" * 1000, park(), ["b" * 1000]), [1, 2, 3][park() - 6]


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
    getattr_of_a_class,
    attrgetter,
    properties,
    descriptors,
    getattribute,
    metaclass,
    class_body,
    hashing,
    comparing,
    containers,
    arithmetic,
    texts,
    calling,
    matching,
    destructor,
    destructor_in_a_dead_frame,
    weakref_callback,
    temporary_values,
    super_calls,
    user_containers,
]
