"""The threads of gofer itself, which wake nobody of their own accord."""

import threading
from collections.abc import Callable
from typing import Any, Final


class OwnThread(threading.Thread):
    """A daemon, known to be ours by `of_gofer`."""

    of_gofer: Final = True

    def __init__(self, target: Callable[..., object], *args: Any, name: str | None = None) -> None:
        super().__init__(target=target, args=args, name=name, daemon=True)
