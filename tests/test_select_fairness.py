"""`select`: of the cases that are ready each is as likely as any other."""

import threading

import pytest

from gofer import Chan, go, select

from shared.channels import closed, full

pytestmark = pytest.mark.usefixtures("nothing_left")


def assert_uniform(counts, draws):
    """That each of the counted is as likely as any other."""
    p = 1 / len(counts)
    spread = 8 * (draws * p * (1 - p)) ** 0.5
    assert sum(counts.values()) == draws
    for which, count in counts.items():
        assert abs(count - draws * p) <= spread, (which, counts)


def count(draws, draw, indices):
    counts = dict.fromkeys(indices, 0)
    for _ in range(draws):
        index, _ = draw()
        counts[index] += 1
    return counts


READY = {
    "two": "rr",
    "three": "rrr",
    "eight": "rrrrrrrr",
    "after one that is not": "-rr",
    "around one that is not": "r-r",
    "after many that are not": "-------rr",
    "scattered": "-r--r---r-",
    "with nil channels": "NrNNrr",
    "sends": "sss",
    "both": "rsrs-",
    "closed": "ccc",
    "all kinds": "rsc-N",
}


@pytest.mark.parametrize("what", READY)
@pytest.mark.parametrize("default", [False, True])
def test_each_ready_case_is_as_likely(what, default):
    never, shut = Chan(), closed()
    draws = 4000

    def case(kind):
        match kind:
            case "r":
                return full(*range(draws)).recv
            case "s":
                return (Chan(draws).send, 1)
            case "c":
                return shut.recv_ok
            case "-":
                return never.recv
            case "N":
                return None

    cases = [case(kind) for kind in READY[what]]
    ready = [at for at, kind in enumerate(READY[what]) if kind in "rsc"]
    assert_uniform(count(draws, lambda: select(*cases, default=default), ready), draws)


def test_a_channel_in_several_cases_has_several_chances():
    draws = 6000
    a, b = full(*range(draws)), full(*range(draws))
    cases = [a.recv, a.recv_ok, b.recv, a.receiver.recv]
    assert_uniform(count(draws, lambda: select(*cases), range(4)), draws)
    ch = Chan(2)
    ch.send(0)

    def draw():
        index, value = select(ch.recv, (ch.send, 0), ch.recv, (ch.send, 0))
        if index % 2:
            ch.recv()
        else:
            ch.send(value)
        return index, value

    assert_uniform(count(draws, draw, range(4)), draws)


def test_one_that_waits_in_several_cases_is_served_in_any(parked):
    draws, ch, counts = 1000, Chan(), dict.fromkeys(range(3), 0)

    def body():
        for _ in range(draws):
            index, _ = select(ch.recv, ch.recv, ch.recv)
            counts[index] += 1

    g = go(body)
    for n in range(draws):
        parked(g)
        ch.send(n)
    g.join()
    assert_uniform(counts, draws)


def test_threads_choose_uniformly_too():
    draws = 400
    a, b, counts = full(*range(draws)), full(*range(draws)), {0: 0, 1: 0}
    chosen = Chan(draws)
    threads = [
        threading.Thread(target=lambda: chosen.send(select(a.recv, b.recv)[0]))
        for _ in range(draws)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(draws):
        counts[chosen.recv()] += 1
    assert_uniform(counts, draws)


def test_one_choice_tells_nothing_of_the_next():
    draws = 4000
    a, b = full(*range(draws)), full(*range(draws))
    chosen = [select(a.recv, b.recv)[0] for _ in range(draws)]
    for distance in (1, 2, 3, 7):
        pairs = list(zip(chosen[::2], chosen[distance::2], strict=False))
        counts = {(x, y): pairs.count((x, y)) for x in (0, 1) for y in (0, 1)}
        assert_uniform(counts, len(pairs))
