"""Who may include and import whom: the table "Rooms, from the ground up" of docs/architecture.md.

A room that is not in the table fails, and so does an include or import that it does not allow.
To change the table, change it there and here.
"""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "src" / "gofer"

ALL = "all"

# --- C ------------------------------------------------------------------------------------------

# A room is a .c file with its header, or a header alone; `sched_x.c` belongs to `sched`. It may
# always include its own headers.
C_ROOMS = {
    "base": set(),
    "switch": set(),
    "pystate": {"base"},
    "stack": {"base", "switch", "pystate"},
    "g": {"base", "stack", "pystate"},
    "timer": {"base", "g"},
    "sema": {"base", "g", "timer"},
    "chan": {"base", "g"},
    "select": {"base", "g", "chan"},
    "scope": {"base", "g", "timer", "sema"},
    "branch": {"base", "pystate"},
    "explore": {"base", "g", "scope"},
    "netpoll": {"base", "g", "timer"},
    "sched": {"base", "g", "timer", "netpoll"},
    "patch": {"base", "g", "pystate", "timer", "netpoll", "sched"},
    "module": ALL,
}


def c_room(file):
    """The room a file belongs to. All of module.c's helpers py_*.c are the room `module`."""
    stem = file.stem
    if stem.startswith("py_") or stem == "module":
        return "module"
    for room in ("g", "netpoll", "patch", "sched", "scope"):
        if stem.startswith(f"{room}_"):
            return room
    return stem


def c_files(*suffixes):
    return sorted(file for file in CSRC.iterdir() if file.suffix in suffixes)


@pytest.mark.parametrize("file", c_files(".c", ".h"), ids=lambda file: file.name)
def test_includes(file):
    room = c_room(file)
    assert room in C_ROOMS, f"{file.name}: no such room in the table"
    allowed = C_ROOMS[room]
    for name in re.findall(r'^\s*#\s*include\s*[<"]([^">]+)', file.read_text(), re.MULTILINE):
        if "pycore_" in name:
            assert room == "pystate", f"{file.name} includes {name}, an inside of CPython"
        elif (CSRC / name).exists():
            included = c_room(Path(name))
            assert allowed is ALL or included == room or included in allowed, (
                f"{file.name} ({room}) may not include {name}"
            )


def test_c_rooms_form_no_circle():
    assert_no_circle(C_ROOMS)


@pytest.mark.parametrize("file", c_files(".c", ".h", ".S"), ids=lambda file: file.name)
def test_versions_of_cpython_are_known_in_one_place(file):
    if c_room(file) != "pystate":
        assert "PY_VERSION_HEX" not in without_comments(file.read_text())


def without_comments(text):
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)


def test_only_the_module_init_is_exported():
    if shutil.which("nm") is None:
        pytest.skip("there is no nm")
    core = pytest.importorskip("gofer._core")
    mac = sys.platform == "darwin"
    options = ["-gU"] if mac else ["-D", "--defined-only"]
    command = ["nm", *options, core.__file__]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = {line.split()[-1].removeprefix("_" if mac else "") for line in table.splitlines()}
    # The linker and the compiler add names of their own on some systems.
    assert names - {"_init", "_fini", "_edata", "_end", "__bss_start"} == {"PyInit__core"}


# --- Python -------------------------------------------------------------------------------------

# A room is a module or a package of gofer; what it imports from itself is its own affair.
PYTHON_ROOMS = {
    "_platform": {"_core"},
    "errors": set(),
    "_core": set(),
    "_check": set(),
    "_guard": {"_core", "errors"},
    "_threads": set(),
    "_report": {"_core", "errors"},
    "_cancel": {"_core", "errors"},
    "chan": {"_core", "errors"},
    "time": {"_core", "errors", "_guard"},
    "sync": {"_core", "errors", "_guard"},
    "scope": {"_core", "errors"},
    "context": {"_core", "errors", "_cancel", "_check", "scope", "time"},
    "blocking": {"_core", "_check", "_guard", "_threads"},
    "aio": {"_core", "_check", "_guard", "_threads", "chan", "errors", "scope"},
    "goroutine": {"_core", "errors", "_check", "_report", "scope"},
    "combine": {"_core", "errors", "_check", "goroutine"},
    "runtime": {"_core", "errors", "_report", "scope", "goroutine", "chan", "time", "sync"},
    "stdlib": {"_core", "blocking", "errors", "scope"},
    "testing": {"_core", "errors", "_report", "scope", "runtime"},
    "__init__": ALL,
    "cli": ALL,
    "__main__": {"cli"},
}


def python_room(module):
    """`gofer.sync._cond` is in the room `sync`; `gofer` itself is `__init__`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def python_files():
    return sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi")])


def module_name(file):
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file):
    """The modules of gofer that a file imports, wherever in it the import stands."""
    module = module_name(file)
    package = module if file.stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if is_ours(name.name))
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                parents = package.split(".")
                above = parents[: len(parents) - node.level + 1]
                origin = ".".join([*above, origin] if origin else above)
            if is_ours(origin):
                for name in node.names:
                    whole = f"{origin}.{name.name}"
                    yield whole if is_module(whole) else origin


def is_ours(name):
    return name == "gofer" or name.startswith("gofer.")


def is_module(name):
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.is_dir() or any(path.with_suffix(suffix).exists() for suffix in (".py", ".pyi"))


@pytest.mark.parametrize("file", python_files(), ids=module_name)
def test_imports(file):
    room = python_room(module_name(file))
    assert room in PYTHON_ROOMS, f"{file.name}: no such room in the table"
    allowed = PYTHON_ROOMS[room]
    for name in imports(file):
        imported = python_room(name)
        assert allowed is ALL or imported == room or imported in allowed, (
            f"{module_name(file)} ({room}) may not import {name}"
        )


def test_python_rooms_form_no_circle():
    assert_no_circle(PYTHON_ROOMS)


@pytest.mark.parametrize("file", python_files(), ids=module_name)
def test_imports_stand_at_the_top(file):
    """An import inside a function hides a circle. `__version__` is the one that saves time."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, functions) and not (
            module_name(file) == "gofer" and node.name == "__getattr__"
        ):
            inner = [n for n in ast.walk(node) if isinstance(n, (ast.Import, ast.ImportFrom))]
            assert not inner, f"{module_name(file)}.{node.name} imports in line {inner[0].lineno}"


def test_import_brings_only_the_library():
    """Importing gofer is fast: neither the command nor what is slow to import comes with it."""
    command = [sys.executable, "-c", "import sys, gofer; print(*sys.modules)"]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert "gofer._core" in loaded
    assert not {"gofer.cli", "argparse", "asyncio", "importlib.metadata"} & set(loaded)


def test_import_is_no_use_of_the_library():
    """It makes no goroutine 1, starts no thread and leaves the handlers of signals alone."""
    program = (
        "import signal, sys, threading\n"
        "import gofer.cli.main, gofer.context, gofer.runtime, gofer.sync, gofer.testing\n"
        "assert gofer.runtime.stats()['workers'] == 0\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
        "assert threading.active_count() == 1\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("pretend", "named"),
    [
        ("sys.platform = 'win32'", "this is win32"),
        ("sys.implementation.name = 'pypy'", "this is pypy"),
        ("sys.version_info = (3, 16, 0)", "this is CPython 3.16"),
        ("os.uname = lambda: types.SimpleNamespace(machine='riscv64')", "Python on riscv64"),
    ],
)
def test_import_says_where_gofer_runs(pretend, named):
    program = f"import os, sys, types\n{pretend}\nimport gofer"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    message = result.stderr.splitlines()[-1]
    assert message.startswith("ImportError: gofer runs on Linux and macOS on x86-64 and aarch64")
    assert message.endswith(named)


# --- both ---------------------------------------------------------------------------------------


def assert_no_circle(rooms):
    """Taking away again and again the rooms that use no other takes them all away."""
    uses = {room: allowed for room, allowed in rooms.items() if allowed is not ALL}
    while uses:
        ground = {room for room, allowed in uses.items() if not allowed & uses.keys()}
        assert ground, f"these use each other: {sorted(uses)}"
        uses = {room: allowed for room, allowed in uses.items() if room not in ground}


# --- sizes --------------------------------------------------------------------------------------


def sources():
    tests = [file for file in (ROOT / "tests").rglob("*.py") if "__pycache__" not in file.parts]
    return [*c_files(".c", ".h", ".S"), *PACKAGE.rglob("*.py"), *tests]


def test_files_and_lines_are_short():
    texts = {file: file.read_text().splitlines() for file in sources()}
    assert not [file.name for file, lines in texts.items() if len(lines) > 600]
    wide = [
        (f.name, n)
        for f in c_files(".c", ".h")
        for n, line in enumerate(texts[f], 1)
        if len(line) > 110
    ]
    assert not wide  # ruff has an eye on those in Python
