"""What of `queue` is in Python: the core exchanges methods of `Queue` (csrc/patch_pyqueue.c)."""

from gofer import _core

__all__ = ["begin", "end"]


def begin() -> None:
    _core.patch_queues(True)


def end() -> None:
    _core.patch_queues(False)
