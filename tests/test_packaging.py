"""What is installed, and that it comes whole through sdist and wheel into an empty environment."""

import builtins
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import gofer

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "gofer"


def run(*words, cwd, **env):
    result = subprocess.run(
        list(map(str, words)),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, **env},
    )
    print(result.stdout, result.stderr, sep="\n")
    assert result.returncode == 0
    return result.stdout


def sources():
    """The files of the Python half, as they lie in site-packages."""
    found = (path for path in PACKAGE.rglob("*") if path.is_file())
    return {f"gofer/{p.relative_to(PACKAGE).as_posix()}" for p in found if p.suffix != ".pyc"}


def is_core(name):
    return re.fullmatch(r"gofer/_core\.[\w.-]+\.so", name)


def of_the_package(names):
    return {name for name in names if name.startswith("gofer/") and not name.endswith(".pyc")}


# --- what is installed --------------------------------------------------------------------------


def test_the_version_stands_in_the_build_file():
    stated = re.search(r"version: '(.*)'", (ROOT / "meson.build").read_text())[1]
    assert gofer.__version__ == importlib.metadata.version("gofer") == stated


def test_nothing_else_is_needed():
    needed = importlib.metadata.requires("gofer") or []
    assert [text for text in needed if "extra ==" not in text] == []


def test_the_files_are_those_of_the_checkout_and_the_core():
    installed = of_the_package(map(str, importlib.metadata.files("gofer")))
    core = set(filter(is_core, installed))
    assert len(core) == 1
    assert installed - core == sources()
    assert "gofer/py.typed" in installed


# --- sdist and wheel ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A clean clone of what is in the folder: what is committed there, and what would be."""
    if importlib.util.find_spec("mesonpy") is None:
        pytest.skip("meson-python is not installed")
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("an sdist is made from a git repository")
    place = tmp_path_factory.mktemp("checkout")
    names = run("git", "ls-files", "-co", "--exclude-standard", "-z", cwd=ROOT).split("\0")
    for name in filter(None, names):
        if (ROOT / name).exists():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name)
    run("git", "init", "--quiet", cwd=place)
    run("git", "add", "--all", cwd=place)
    author = ["-c", "user.name=gofer", "-c", "user.email=gofer@localhost"]
    run("git", *author, "commit", "--quiet", "--message=all", cwd=place)
    return place


def test_a_star_import_hides_little():
    """gofer.map and gofer.time are not what a program means by these names."""
    hidden = {*dir(builtins), *sys.stdlib_module_names} & set(gofer.__all__)
    assert hidden == {"select"}


@pytest.mark.skipif("TSAN_OPTIONS" in os.environ, reason="takes minutes with a sanitizer")
def test_sdist_and_wheel(checkout, tmp_path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    build = f"import mesonpy; mesonpy.build_sdist({str(tmp_path)!r})"
    run(sys.executable, "-c", build, cwd=checkout, PATH=path)
    [sdist] = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"src/{name}" for name in sources()} <= packed

    pip = [sys.executable, "-W", "ignore", "-m", "pip", "--quiet"]
    options = ["--no-build-isolation", "--no-deps", "--no-index"]
    run(*pip, "wheel", *options, sdist, cwd=tmp_path, PATH=path)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = of_the_package(archive.namelist())
    assert {name for name in packed if not is_core(name)} == sources()

    run(sys.executable, "-m", "venv", "--without-pip", "empty", cwd=tmp_path)
    python = tmp_path / "empty" / "bin" / "python"
    run(*pip, "--python", python, "install", "--no-index", wheel, cwd=tmp_path)
    where = run(python, "-c", "import gofer; print(gofer.__file__)", cwd=tmp_path)
    assert where.startswith(str(tmp_path))
    command = [python.with_name("gofer"), "run", ROOT / "examples" / "sieve.py", 5]
    assert run(*command, cwd=tmp_path) == "2 3 5 7 11\n"
