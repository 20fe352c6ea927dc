"""`gofer run` against plain Python: the same program, the same output, errors and exit status.

Most tests here run one program twice, by `python` and by `gofer run`, and compare. So they state no
expectation that could be wrong on another version of Python.
"""

import os
import py_compile
import re
import signal
import subprocess
import sys
import sysconfig
import textwrap
import time
import zipfile
from pathlib import Path

import pytest

import gofer

PYTHON = [sys.executable]
GOFER = [sys.executable, "-m", "gofer", "run"]


def execute(command, cwd, stdin="", **env):
    return subprocess.run(
        command,
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **env},
    )


def gofer_run(cwd, *words, stdin=""):
    return execute([*GOFER, *words], cwd, stdin)


def code(source):
    return textwrap.dedent(source).strip()


def outcome(result):
    """What a user sees, without what differs from run to run."""
    anonymous = [re.sub(r"0x[0-9a-f]+", "0x", text) for text in (result.stdout, result.stderr)]
    return [result.returncode, *anonymous]


def same(cwd, *words, stdin="", flags=()):
    plain = execute([*PYTHON, *flags, *words], cwd, stdin)
    ours = execute([sys.executable, *flags, "-m", "gofer", "run", *words], cwd, stdin)
    assert outcome(ours) == outcome(plain)
    return ours


# What a program can see of how it was started.
SHOW = code("""
    import sys
    for name, value in sorted(globals().items()):
        print(name, value)
    print(sys.argv, sys.path[0], sys.modules["__main__"].__dict__ is globals())
    print(type(__builtins__), __name__, __doc__)
""")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "show.py").write_text('"""Its docstring."""\n' + SHOW)
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("print('init', __name__)\n")
    (package / "__main__.py").write_text("from . import tool\n" + SHOW)
    (package / "tool.py").write_text("if __name__ == '__main__':\n    1 / 0\n")
    return tmp_path


# --- where the program comes from ---------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["show.py"],
        ["./show.py", "a", "-b", "--help", "--"],
        ["package/../show.py", "run"],
        ["--", "show.py", "-c"],
        ["-m", "show", "-m", "x"],
        ["-mshow"],
        ["-m", "package", "--version"],
        ["-m", "package.tool"],
        ["package", "a"],
        ["-c", SHOW, "x", "-c", "y"],
        ["-c", ""],
        ["-c", "-1"],
        ["-cprint(1)"],
    ],
    ids=" ".join,
)
def test_program_sees_what_python_shows_it(folder, words):
    same(folder, *words)


def test_program_from_standard_input(folder):
    same(folder, "-", "a", "b", stdin=SHOW)
    same(folder, "-", stdin="print(1)\nraise ValueError(3)\n")


def test_standard_input_is_the_programs(folder):
    (folder / "upper.py").write_text("import sys; print(sys.stdin.read().upper())")
    assert same(folder, "upper.py", stdin="some words").stdout == "SOME WORDS\n"


def test_link_to_a_script(folder):
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "link.py").symlink_to("../show.py")
    same(folder, "elsewhere/link.py")


def test_zip_file(folder):
    with zipfile.ZipFile(folder / "app.zip", "w") as archive:
        archive.writestr("__main__.py", SHOW)
    same(folder, "app.zip", "a")


def test_compiled_file(folder):
    py_compile.compile(str(folder / "show.py"), cfile=str(folder / "compiled.pyc"))
    same(folder, "compiled.pyc")


@pytest.mark.parametrize(
    "words", [["-m", "nothing"], ["-m", "show.nothing"], ["empty"]], ids=" ".join
)
def test_program_that_is_not_there(folder, words):
    (folder / "empty").mkdir()
    assert same(folder, *words).returncode == 1


def test_file_that_is_not_there(folder):
    result = gofer_run(folder, "nothing.py")
    assert result.returncode == 2
    path = folder / "nothing.py"
    assert (
        result.stderr == f"gofer: can't open file '{path}': [Errno 2] No such file or directory\n"
    )


def test_safe_path(folder):
    same(folder, "show.py", flags=["-P"])
    same(folder, "-c", SHOW, flags=["-P"])
    same(folder, "package", flags=["-P"])


@pytest.mark.parametrize("flags", [["-O"], ["-X", "dev"], ["-W", "error"], ["-E", "-s"]])
def test_flags_of_python(folder, flags):
    if "-E" in flags and "PYTHONPATH" in os.environ:
        pytest.skip("gofer itself is found through PYTHONPATH")
    (folder / "flags.py").write_text(
        code("""
            import sys, warnings
            print(sys.flags, __debug__)
            warnings.warn("x", DeprecationWarning)
        """)
    )
    same(folder, "flags.py", flags=flags)


# --- errors and exit status ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "raise SystemExit",
        "raise SystemExit(3)",
        "raise SystemExit('a last word')",
        "raise SystemExit([1, 2])",
        "raise SystemExit(300)",
        "raise SystemExit(-1)",
        "raise KeyboardInterrupt('stop')",
        "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import os; os._exit(7)",
        "def f(n):\n    1 / n\nf(0)",
        "try:\n    1 / 0\nexcept ArithmeticError as e:\n    raise ValueError from e",
        "try:\n    1 / 0\nexcept ArithmeticError:\n    raise ValueError",
        "raise ExceptionGroup('two', [ValueError(1), OSError(2, 'x')])",
        "e = ValueError(1)\ne.add_note('a note')\nraise e",
        "import json\njson.loads('{')",
        "x = = 1",
        "def f():\n  return 1\n   return 2",
        "import traceback\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    traceback.print_exc()",
        "import sys\nsys.stdout.write('no end of line')\nsys.exit('and a message')",
    ],
)
def test_end_of_the_program(folder, source):
    (folder / "ends.py").write_text(source)
    same(folder, "ends.py")
    same(folder, "-c", source)
    same(folder, "-m", "ends")


def test_source_lines_are_those_of_the_file(folder):
    (folder / "latin.py").write_bytes(
        b"# coding: latin-1\r\nprint(ascii('\xe9'))\r\n1 / 0  # \xe9\r\n"
    )
    assert "UnicodeDecodeError" not in same(folder, "latin.py").stderr


def test_indented_command(folder):
    same(folder, "-c", "  import sys\n  def f():\n    1 / 0\n  f()")


def test_futures_of_the_launcher_are_not_inherited(folder):
    same(folder, "-c", "def f(x: undefined): pass\nprint(f.__annotations__)")
    same(
        folder,
        "-c",
        "from __future__ import annotations\ndef f(x: y): pass\nprint(f.__annotations__)",
    )


def test_hook_for_uncaught_exceptions(folder):
    hook = code("""
        import sys, traceback
        def hook(kind, error, trace):
            print(kind, error, error.__traceback__ is trace, sys.last_traceback is trace)
            traceback.print_tb(trace)
        sys.excepthook = hook
        1 / 0
    """)
    (folder / "hook.py").write_text(hook)
    same(folder, "hook.py")


def test_threads_and_atexit_come_after(folder):
    (folder / "late.py").write_text(
        code("""
            import atexit, threading, time
            value = "its globals are alive"
            atexit.register(lambda: print("atexit", value))
            def late():
                time.sleep(0.2)
                print("thread", value, __name__)
            threading.Thread(target=late).start()
            print("end")
        """)
    )
    assert same(folder, "late.py").stdout.startswith("end\nthread its")


# --- __main__ is a real module ------------------------------------------------------------------


def test_main_can_be_inspected_and_pickled(folder):
    (folder / "inspected.py").write_text(
        code("""
            import inspect, pickle, sys
            def f():
                return 1  # here
            class C:
                def method(self): ...
            print(inspect.getsource(f), inspect.getsource(C), inspect.getsourcefile(C))
            print(inspect.getmodule(f) is sys.modules["__main__"], f.__module__)
            for thing in (f, C, C.method):
                assert pickle.loads(pickle.dumps(thing)) is thing
            print(pickle.dumps(C), __loader__.get_source("__main__") == open(__file__).read())
            import __main__
            assert __main__.f is f
        """)
    )
    assert same(folder, "inspected.py").returncode == 0


def test_multiprocessing_finds_main_again(folder):
    (folder / "pool.py").write_text(
        code("""
            import multiprocessing
            def square(x):
                return x * x
            if __name__ == "__main__":
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    print(pool.map(square, [1, 2, 3]))
        """)
    )
    assert same(folder, "pool.py").stdout == "[1, 4, 9]\n"
    assert same(folder, "-m", "pool").stdout == "[1, 4, 9]\n"


def test_prompt_after_the_program(folder):
    result = execute(
        [sys.executable, "-i", "-m", "gofer", "run", "-c", "x = 40"], folder, "print(x + 2)\n"
    )
    assert result.stdout == "42\n"
    assert "Traceback" not in result.stderr


# --- what gofer adds ----------------------------------------------------------------------------


def test_main_is_goroutine_1(folder):
    result = gofer_run(folder, "-c", "import gofer; print(gofer.current().id)")
    assert result.stdout == "1\n"


def test_goroutines_are_unwound_when_main_ends(folder):
    result = gofer_run(
        folder,
        "-c",
        code("""
            from gofer import Chan, go, gosched
            def wait():
                try:
                    Chan().recv()
                finally:
                    print("unwound")
            go(wait)
            gosched()
            print("end of main")
        """),
    )
    assert outcome(result) == [0, "end of main\nunwound\n", ""]


def test_deadlock(folder):
    (folder / "stuck.py").write_text("from gofer import Chan\ndef f():\n    Chan().recv()\nf()\n")
    result = gofer_run(folder, "stuck.py")
    assert result.returncode == 2
    first, *trace = result.stderr.split("\n\n")[0].splitlines()
    assert first == "Traceback (most recent call last):"
    assert "stuck.py" in trace[0]
    assert trace[-1] == "gofer.errors.Deadlock: all goroutines are asleep - deadlock!"
    assert "goroutine 1 [chan receive" in result.stderr
    assert os.path.join("cli", "main.py") not in result.stderr  # nor in the dump of goroutine 1


def test_deadlock_of_a_program_with_a_hook_of_its_own(folder):
    source = code("""
        import sys
        from gofer import Chan
        sys.excepthook = lambda *_: print("mine")
        Chan().recv()
    """)
    assert outcome(gofer_run(folder, "-c", source)) == [2, "mine\n", ""]


def test_goexit_of_main_waits_for_the_others(folder):
    source = code("""
        from gofer import go, goexit, sleep
        def late():
            sleep(0.05)
            print("late")
        go(late)
        goexit()
    """)
    result = gofer_run(folder, "-c", source)
    assert (result.returncode, result.stdout) == (2, "late\n")
    assert result.stderr.startswith("gofer.errors.Deadlock: all goroutines are asleep")


def test_panic(folder):
    (folder / "panics.py").write_text(
        code("""
            from gofer import go, sleep
            def f():
                1 / 0
            print("before", end="")
            go(f)
            sleep(10)
        """)
    )
    result = gofer_run(folder, "panics.py")
    assert (result.returncode, result.stdout) == (2, "before")
    assert result.stderr.startswith("panic: ZeroDivisionError: division by zero\n\ngoroutine ")
    assert os.path.join("cli", "main.py") not in result.stderr


def test_exit_from_another_goroutine(folder):
    source = "import sys\nfrom gofer import go, sleep\ngo(sys.exit, 5)\nsleep(10)"
    assert outcome(gofer_run(folder, "-c", source)) == [5, "", ""]


def test_interrupt_while_all_wait(folder):
    process = subprocess.Popen(
        [*GOFER, "-c", "from gofer import sleep\nprint('ready', flush=True)\nsleep(60)"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.1)  # from printing to waiting
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert os.path.join("cli", "main.py") not in errors


# --- the command itself -------------------------------------------------------------------------


def test_version(folder):
    result = execute([sys.executable, "-m", "gofer", "--version"], folder)
    python = ".".join(map(str, sys.version_info[:3]))
    assert outcome(result) == [0, f"gofer {gofer.__version__} (Python {python})\n", ""]


def test_installed_script(folder):
    script = Path(sysconfig.get_path("scripts"), "gofer")
    if not script.exists():
        pytest.skip("gofer is not installed as a command")
    plain = execute([*PYTHON, "show.py", "a"], folder)
    assert outcome(execute([str(script), "run", "show.py", "a"], folder)) == outcome(plain)
    stop = ["-c", "raise KeyboardInterrupt"]
    assert outcome(execute([str(script), "run", *stop], folder)) == outcome(
        execute([*PYTHON, *stop], folder)
    )


def test_help(folder):
    result = execute([sys.executable, "-m", "gofer"], folder)
    assert (result.returncode, result.stdout) == (2, "")
    assert "run a Python program" in result.stderr
    result = execute([sys.executable, "-m", "gofer", "run", "-h"], folder, NO_COLOR="1")
    assert (result.returncode, result.stderr) == (0, "")
    assert "gofer run prog.py" in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run"], "name the program to run"),
        (["run", "-m"], "expected one argument"),
        (["run", "--loud", "show.py"], "--loud"),
        (["walk"], "invalid choice: 'walk'"),
    ],
)
def test_misuse(folder, words, message):
    result = execute([sys.executable, "-m", "gofer", *words], folder, NO_COLOR="1")
    assert result.returncode == 2
    assert message in result.stderr
