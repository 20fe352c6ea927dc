"""Whatever calls back may park: special methods, generators, the standard library, imports."""

import gc
import json
import re
import sys

import pytest

from gofer import Chan, current, fork, gosched, run

from shared.operations import classes, flow, library
from shared.parking import MANY, Park

OPERATIONS = [*classes.OPERATIONS, *flow.OPERATIONS, *library.OPERATIONS]

pytestmark = pytest.mark.usefixtures("nothing_left")


# --- whatever calls back ------------------------------------------------------------------------


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
                started.append((operation, fork(operation, park)))
        while not all(task.done for _, task in started):
            chosen = gates[:]
            if len(chosen) > 8:
                chosen = rng.sample(chosen, len(chosen) * 3 // 4)
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
