"""What is done to modules once they are imported, be that before `patch()` or after.

    _RUNNERS = Imports({"asyncio.runners": begin})      # begin() may return what undoes it

A finder stands in `sys.meta_path`. It finds nothing itself: it has those behind it find the module,
and sees to it that `begin` is called when the module has run.

What must stay true:
- A program that never imports the module never pays for it.
- What has begun is undone once.
"""

import sys
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec
from typing import Any

__all__ = ["Begin", "Imports"]

Begin = Callable[[], Callable[[], object] | None]


class Imports:
    """Modules by name, and what is to begin with each."""

    def __init__(self, begins: Mapping[str, Begin]) -> None:
        self._begins = dict(begins)
        self._waiting: dict[str, list[Begin]] = {}
        self._undo: list[Callable[[], object]] = []

    def watch(self) -> None:
        finder: Any = self
        sys.meta_path.insert(0, finder)
        for name, begin in self._begins.items():
            self.add(name, begin)

    def forget(self) -> None:
        """Wait for nothing any more, and undo what has begun."""
        finder: Any = self
        sys.meta_path.remove(finder)
        self._waiting.clear()
        while self._undo:
            self._undo.pop()()

    def add(self, name: str, begin: Begin) -> None:
        """Call `begin()` when the module has been imported: now, if that is so."""
        if name in sys.modules:
            self._call(begin)
        else:
            self._waiting.setdefault(name, []).append(begin)

    def _call(self, begin: Begin) -> None:
        undo = begin()
        if undo is not None:
            self._undo.append(undo)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in self._waiting:
            return None
        finders: list[Any] = list(sys.meta_path)
        for finder in finders[finders.index(self) + 1 :]:
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find and find(name, path, target)
            if spec is not None:
                if spec.loader is not None and not isinstance(spec.loader, type):
                    self._hook(spec.loader, name)
                return spec
        return None

    def _hook(self, loader: Any, name: str) -> None:
        """Have the loader begin when the module has run; it may be that of other modules, too."""
        execute = loader.exec_module

        def exec_module(module: Any) -> None:
            if module.__name__ != name:
                execute(module)
                return
            loader.exec_module = execute
            execute(module)
            for begin in self._waiting.pop(name, []):
                self._call(begin)

        loader.exec_module = exec_module
