"""The command line: `gofer run prog.py` runs a program with its module body as goroutine 1.

What must stay true: a program can not tell from `sys.argv`, `sys.path`, `__main__`, its tracebacks
or its exit status whether `python` or `gofer run` started it.

So `__main__` is a module of its own, made as the interpreter makes it, and not that of this
command; and the interpreter itself prints an uncaught exception and turns it into an exit status,
only with the frames of this file taken off the traceback at the last moment. Rejected:
`runpy.run_path`, whose `__main__` is gone when threads, `atexit` functions and `python -i` need it;
and printing and exiting here, which can not end the process by SIGINT after a KeyboardInterrupt.
"""

import argparse
import builtins
import io
import linecache
import os
import pkgutil
import runpy
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.machinery import BuiltinImporter, SourceFileLoader, SourcelessFileLoader
from types import ModuleType, TracebackType
from typing import Any

import gofer
from gofer import _core

__all__ = ["main"]


def main(words: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, by default those of the process; its exit status.

    `gofer run` raises what the program raises: let it through to the interpreter.
    """
    words = sys.argv[1:] if words is None else list(words)
    program = None
    if words[:1] == ["run"]:
        own, program = _split(words[1:])
        words = ["run", *own]
    parser, run_parser = _parsers()
    options = parser.parse_args(words)
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    if program is None:
        run_parser.error("name the program to run: a file, - for standard input, -m or -c")
    return _run(program)


# --- the arguments ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Program:
    """What is to be run: `how` is "-m", "-c", "-" or "" for a file, and `what` its operand."""

    how: str
    what: str
    args: list[str]


def _split(words: list[str]) -> tuple[list[str], Program | None]:
    """Cut the words after `run` as Python cuts its own: what follows the program belongs to it."""
    for at, word in enumerate(words):
        own, rest = words[:at], words[at + 1 :]
        if word in ("-m", "-c", "--"):
            if not rest:
                break
            return own, Program("" if word == "--" else word, rest[0], rest[1:])
        if word[:2] in ("-m", "-c"):
            return own, Program(word[:2], word[2:], rest)
        if word == "-":
            return own, Program("-", word, rest)
        if not word.startswith("-"):
            return own, Program("", word, rest)
    return words, None


def _parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="gofer",
        formatter_class=raw,
        description="Goroutines for Python: start thousands of functions that wait for each other.",
        epilog="`gofer run -h` says more about running a program.",
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    run = commands.add_parser(
        "run",
        formatter_class=raw,
        usage="gofer run FILE|-|-m MODULE|-c CODE [argument ...]",
        help="run a Python program as goroutine 1",
        description=(
            "Run a Python program as `python` would, as goroutine 1, with the standard library\n"
            "cooperative (gofer.patch). When its last line is done, the program ends: goroutines\n"
            "that are still alive are stopped, and their `finally` and `with` blocks run."
        ),
        epilog=(
            "examples:\n"
            "  gofer run prog.py --verbose        the file prog.py with one argument\n"
            "  gofer run -m package.tool          a module, as python -m does\n"
            '  gofer run -c "print(1)"            the code itself\n'
            "  gofer run - < prog.py              what comes from standard input\n"
            "\n"
            "exit status: that of the program; 1 after an uncaught exception, 2 after a deadlock\n"
            "or when a goroutine panics"
        ),
    )
    # Cut off by _split before the parser sees them; here for the help and for what is missing.
    run.add_argument("FILE", nargs="?", help="a file, or a folder or zip file with __main__.py")
    run.add_argument("-m", metavar="MODULE", help="run an installed module or package")
    run.add_argument("-c", metavar="CODE", help="run this code")
    run.add_argument("argument", nargs="*", help="what the program finds in sys.argv[1:]")
    return parser, run


class _Version(argparse.Action):
    """Looks the version up when asked for it."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        python = ".".join(map(str, sys.version_info[:3]))
        print(f"gofer {gofer.__version__} (Python {python})")
        parser.exit()


# --- running ------------------------------------------------------------------------------------


class _Goroutine1:
    """What goroutine 1 runs; remembers where the program's own part of a traceback begins."""

    def __init__(self) -> None:
        self._error: BaseException | None = None
        self._trace: TracebackType | None = None

    def __call__(self, body: Callable[[], object]) -> None:
        try:
            body()
        except BaseException as error:
            self._error = error
            self._trace = error.__traceback__ and error.__traceback__.tb_next
            raise

    def trace_of(self, error: BaseException) -> TracebackType | None:
        """The traceback of `error` without our frames; None if the program did not raise it."""
        return self._trace if error is self._error else None


def _run(program: Program) -> int:
    goroutine_1 = _Goroutine1()
    try:
        body = _prepare(program)
        if body is None:
            return 2
        gofer.patch()
        gofer.run(goroutine_1, body)
    except BaseException as error:
        _print_without_us(goroutine_1.trace_of(error))
        raise
    return 0


def _print_without_us(trace: TracebackType | None) -> None:
    """Have the exception that is on its way to the interpreter printed with this traceback."""
    hook = getattr(sys, "excepthook", sys.__excepthook__)

    def excepthook(
        kind: type[BaseException], error: BaseException, _: TracebackType | None
    ) -> None:
        sys.excepthook = hook
        sys.last_traceback = error.__traceback__ = trace
        try:
            hook(kind, error, trace)
        finally:
            if isinstance(error, gofer.Deadlock):  # also if the program has a hook of its own
                _core.set_exit_status(2)

    sys.excepthook = excepthook


def _prepare(program: Program) -> Callable[[], object] | None:
    """Set up `sys` and `__main__`; return what runs the program, or None if it can not be read."""
    names = _fresh_main()
    sys.argv[:] = [program.how or program.what, *program.args]
    match program.how:
        case "-m":
            _replace_path0(os.getcwd())
            return partial(_run_module_as_main, program.what)
        case "-c":
            _replace_path0("")
            names["__loader__"] = BuiltinImporter
            return partial(exec, _compile_command(program.what), names)
        case "-":
            _replace_path0("")
            names["__loader__"] = BuiltinImporter
            _set_file(names, "<stdin>")
            source = sys.stdin.buffer.read()
            return partial(exec, compile(source, "<stdin>", "exec", dont_inherit=True), names)
        case _:
            return _prepare_file(program.what, names)


def _prepare_file(name: str, names: dict[str, Any]) -> Callable[[], object] | None:
    path = name  # made absolute as Python does it: not normalised
    if not os.path.isabs(name):
        path = os.path.join(os.getcwd(), name)
    if pkgutil.get_importer(path) is not None:  # a folder, or a zip file
        _replace_path0(path, always=True)
        return partial(_run_module_as_main, "__main__", alter_argv=False)
    _replace_path0(os.path.dirname(os.path.realpath(path)))
    _set_file(names, path)
    if path.endswith(".pyc"):
        loader = names["__loader__"] = SourcelessFileLoader("__main__", path)
        code: Any = loader.get_code("__main__")
        return partial(exec, code, names)
    names["__loader__"] = SourceFileLoader("__main__", path)
    try:
        with io.open_code(path) as file:
            source = file.read()
    except OSError as error:
        print(
            f"gofer: can't open file {path!r}: [Errno {error.errno}] {error.strerror}",
            file=sys.stderr,
        )
        return None
    return partial(exec, compile(source, path, "exec", dont_inherit=True), names)


# What `python -m` calls itself; its frames stand in the traceback there, and so they do here.
_run_module_as_main: Callable[..., object] = vars(runpy)["_run_module_as_main"]


def _fresh_main() -> dict[str, Any]:
    """Put an empty `__main__` in place of that of this command, as the interpreter starts with."""
    module = sys.modules["__main__"] = ModuleType("__main__")
    names = vars(module)
    if sys.version_info < (3, 14):
        names["__annotations__"] = {}
    names["__builtins__"] = builtins
    return names


def _set_file(names: dict[str, Any], path: str) -> None:
    names["__file__"] = path
    if sys.version_info < (3, 15):
        names["__cached__"] = None


def _replace_path0(entry: str, always: bool = False) -> None:
    """Put the program's folder where that of this command stands (nowhere under `python -P`)."""
    if not sys.flags.safe_path:
        sys.path[0] = entry
    elif always:
        sys.path.insert(0, entry)


def _compile_command(source: str) -> Any:
    if sys.version_info >= (3, 14):
        source = textwrap.dedent(source)
    if sys.version_info >= (3, 13):  # from here on tracebacks show the lines of -c
        lines = [line + "\n" for line in source.splitlines()]
        linecache.cache["<string>"] = (len(source), None, lines, "<string>")
    return compile(source, "<string>", "exec", dont_inherit=True)
