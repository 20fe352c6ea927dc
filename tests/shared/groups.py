"""What is said and done of Groups."""

from gofer import Chan


def wait_for_ever():
    Chan().recv()


def fail(error):
    raise error


def kinds(group):
    """The classes of its exceptions, in order of their names."""
    return sorted((type(error) for error in group.exceptions), key=lambda kind: kind.__name__)
