"""What is said and done of Groups."""

import functools

from gofer import Chan


def wait_for_ever():
    Chan().recv()


def fail(error):
    raise error


def fail_at_the_end():
    """Waits for ever, and fails when that is ended."""
    try:
        wait_for_ever()
    finally:
        raise ValueError


def kinds(group):
    """The classes of its exceptions, in order of their names."""
    return sorted((type(error) for error in group.exceptions), key=lambda kind: kind.__name__)


def fails(error):
    """A function that does."""
    return functools.partial(fail, error)


async def coroutine_function():
    pass


REFUSED = [None, 3, coroutine_function, functools.partial(coroutine_function)]


class Odd(BaseException):
    """No Exception."""
