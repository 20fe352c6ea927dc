"""What is done in cancel scopes."""

from gofer import Cancelled, Goroutine, WaitGroup, cancel_scope, fork, go, gosched

from shared.groups import wait_for_ever


def is_cancelled():
    """Whether the caller is in a cancelled scope."""
    try:
        gosched()
    except Cancelled:
        return True
    return False


def waiting(fn, *args):
    """A task that has come to wait."""
    task = fork(fn, *args)
    while task.state != "waiting":
        gosched()
    return task


def ended(goroutine):
    """It, when it has ended."""
    Goroutine.join(goroutine)
    return goroutine


def body_that_waits(scopes):
    """Waits in a scope, which it sends there."""
    with cancel_scope() as scope:
        scopes.send(scope)
        wait_for_ever()
    return "left"


def until_though_cancelled(over, step, rng):
    """step() until over(), each time in a scope that another goroutine cancels at random."""
    scopes = []

    def annoy():
        while not over():
            if scopes:
                scopes.pop().cancel()
            for _ in range(rng.randrange(3)):
                gosched()

    annoyer = fork(annoy)
    while not over():
        with cancel_scope() as scope:
            scopes.append(scope)
            step()
    annoyer.join()


def start_with_go(fn):
    return go(fn)


def start_with_fork(fn):
    return fork(fn)


def start_in_wait_group(fn):
    return WaitGroup().go(fn)


STARTS = [start_with_go, start_with_fork, start_in_wait_group]
