"""Channels that hold something from the start."""

from gofer import Chan


def full(*values):
    """A channel with room for these, which are in it."""
    ch = Chan(len(values))
    for value in values:
        ch.send(value)
    return ch


def closed(*values):
    """The same, closed."""
    ch = full(*values)
    ch.close()
    return ch
