"""Chan, SendChan and RecvChan as types: making one, views, and what is refused."""

import copy
import pickle
import sys
import threading
import types
import weakref

import pytest

from gofer import Chan, RecvChan, SendChan, fork

from shared import Token

pytestmark = pytest.mark.usefixtures("nothing_left")


# --- making one ---------------------------------------------------------------------------------


def test_unbuffered_unless_a_capacity_is_given():
    assert Chan().cap == 0
    assert Chan(0).cap == 0
    assert Chan(3).cap == 3
    assert Chan(cap=3).cap == 3


def test_a_type_for_checkers_changes_nothing():
    ch = Chan[int](10)
    assert type(ch) is Chan
    assert ch.cap == 10
    for kind in (Chan, SendChan, RecvChan):
        assert isinstance(kind[int], types.GenericAlias)
        assert kind[int].__origin__ is kind
        assert kind[int].__args__ == (int,)


def test_a_new_one_is_empty_open_and_true():
    for ch in (Chan(), Chan(2)):
        assert len(ch) == 0
        assert ch.closed is False
        assert bool(ch) is True


@pytest.mark.parametrize("cap", [-1, -2, -sys.maxsize - 1])
def test_a_negative_capacity_is_refused(cap):
    with pytest.raises(ValueError, match=rf"Chan\({cap}\).*fewer than 0"):
        Chan(cap)


@pytest.mark.parametrize("cap", [1.0, "1", b"1", None, [], object()])
def test_a_capacity_is_an_integer(cap):
    with pytest.raises(TypeError):
        Chan(cap)


def test_a_capacity_may_be_anything_with_an_index():
    class Three:
        def __index__(self):
            return 3

    assert Chan(Three()).cap == 3


@pytest.mark.parametrize("cap", [2**62, sys.maxsize, sys.maxsize // 8])
def test_a_capacity_for_which_there_is_no_memory(cap):
    with pytest.raises(MemoryError):
        Chan(cap)


@pytest.mark.parametrize("cap", [2**63, 2**200, -(2**200)])
def test_a_capacity_that_no_machine_has(cap):
    with pytest.raises(OverflowError):
        Chan(cap)


def test_other_arguments_are_refused():
    with pytest.raises(TypeError):
        Chan(1, 2)
    with pytest.raises(TypeError):
        Chan(size=1)


def test_no_subclass_can_be_made():
    for kind in (Chan, SendChan, RecvChan):
        with pytest.raises(TypeError):
            type("Sub", (kind,), {})


def test_views_are_not_made_by_hand():
    for kind in (SendChan, RecvChan):
        with pytest.raises(TypeError):
            kind()
        with pytest.raises(TypeError):
            kind(Chan())
        with pytest.raises(TypeError):
            object.__new__(kind)


def test_no_attribute_can_be_set():
    ch = Chan(1)
    for thing in (ch, ch.sender, ch.receiver):
        for name in ("cap", "closed", "send", "other"):
            with pytest.raises(AttributeError):
                setattr(thing, name, 1)
            with pytest.raises((AttributeError, TypeError)):
                delattr(thing, name)
        with pytest.raises(TypeError):
            thing.__class__ = Token


def test_copies_are_refused():
    ch = Chan(1)
    for thing in (ch, ch.sender, ch.receiver):
        for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError):
                duplicate(thing)


def test_repr_tells_how_full_it_is_and_whether_closed():
    ch = Chan(3)
    ch.send("x")
    assert "Chan 1/3" in repr(ch)
    assert "closed" not in repr(ch)
    ch.close()
    for thing in (ch, ch.sender, ch.receiver):
        assert type(thing).__name__ in repr(thing)
        assert "1/3 closed" in repr(thing)


def test_channels_are_equal_to_themselves_only():
    a, b = Chan(), Chan()
    assert a == a
    assert a != b
    assert len({a, b, a}) == 2


def test_weak_references():
    ch = Chan()
    alive = weakref.ref(ch)
    assert alive() is ch
    del ch
    assert alive() is None


# --- views --------------------------------------------------------------------------------------


def public(thing):
    return {name for name in dir(thing) if not name.startswith("_")}


def test_each_view_has_its_half_only():
    ch = Chan()
    assert type(ch.sender) is SendChan
    assert type(ch.receiver) is RecvChan
    assert public(ch.sender) == {"send", "close", "cap", "closed"}
    assert public(ch.receiver) == {"recv", "recv_ok", "cap", "closed"}
    assert public(ch) == public(ch.sender) | public(ch.receiver) | {"sender", "receiver"}
    with pytest.raises(TypeError):
        iter(ch.sender)
    with pytest.raises(TypeError):
        next(ch.sender)


def test_views_are_of_the_same_channel():
    ch = Chan(3)
    sender, receiver = ch.sender, ch.receiver
    sender.send(1)
    ch.send(2)
    sender.send(3)
    for thing in (ch, sender, receiver):
        assert len(thing) == 3
        assert thing.cap == 3
        assert thing.closed is False
        assert bool(thing) is True
    assert receiver.recv() == 1
    assert ch.recv() == 2
    sender.close()
    for thing in (ch, sender, receiver):
        assert len(thing) == 1
        assert thing.closed is True
    assert receiver.recv_ok() == (3, True)
    assert receiver.recv_ok() == (None, False)
    assert list(receiver) == []


def test_a_view_waits_and_loops_as_the_channel(parked):
    ch = Chan()
    task = fork(list, ch.receiver)
    for n in range(5):
        ch.sender.send(n)
    ch.sender.close()
    assert task.join() == [0, 1, 2, 3, 4]
    assert iter(ch.receiver) == ch.receiver


def test_views_of_one_half_are_equal():
    ch, other = Chan(), Chan()
    assert ch.sender == ch.sender
    assert hash(ch.sender) == hash(ch.sender)
    assert ch.receiver == ch.receiver
    assert ch.sender != ch.receiver
    assert ch.sender != other.sender
    assert ch.sender != ch
    with pytest.raises(TypeError):
        ch.sender < ch.sender  # noqa: B015


def test_a_view_keeps_the_channel():
    ch = Chan(1)
    alive = weakref.ref(ch)
    sender, receiver = ch.sender, ch.receiver
    del ch
    sender.send("kept")
    del sender
    assert alive() is not None
    assert receiver.recv() == "kept"
    recv = receiver.recv
    del receiver
    assert alive() is not None
    del recv
    assert alive() is None


# --- bad input ----------------------------------------------------------------------------------


def test_arguments_that_do_not_belong():
    ch = Chan(1)
    for call in (
        lambda: ch.send(),
        lambda: ch.send(1, 2),
        lambda: ch.send(value=1),
        lambda: ch.sender.send(),
        lambda: ch.recv(1),
        lambda: ch.recv(timeout=1),
        lambda: ch.recv_ok(1),
        lambda: ch.close(1),
        lambda: ch.receiver.recv(None),
    ):
        with pytest.raises(TypeError):
            call()
    assert len(ch) == 0
    assert not ch.closed


def test_messages_name_the_method():
    with pytest.raises(TypeError, match=r"send\(\) takes exactly one argument \(0 given\)"):
        Chan().send()
    with pytest.raises(TypeError, match=r"recv\(\) takes no arguments \(1 given\)"):
        Chan().recv(1)


@pytest.mark.parametrize("thing", [None, 3, "ch", object(), [], Chan, threading.Lock()])
def test_methods_are_for_channels_only(thing):
    for kind, name, args in (
        (Chan, "send", (1,)),
        (Chan, "recv", ()),
        (Chan, "recv_ok", ()),
        (Chan, "close", ()),
        (SendChan, "send", (1,)),
        (RecvChan, "recv", ()),
        (RecvChan, "__len__", ()),
        (RecvChan, "__next__", ()),
    ):
        with pytest.raises(TypeError):
            getattr(kind, name)(thing, *args)
    with pytest.raises(TypeError):
        Chan.cap.__get__(thing)


def test_a_method_of_one_kind_is_not_for_another():
    ch = Chan(1)
    with pytest.raises(TypeError):
        Chan.send(ch.sender, 1)
    with pytest.raises(TypeError):
        SendChan.send(ch, 1)
    with pytest.raises(TypeError):
        SendChan.send(ch.receiver, 1)
    with pytest.raises(TypeError):
        RecvChan.recv(ch.sender)
    assert len(ch) == 0
