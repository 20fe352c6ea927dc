"""The programs in examples/ and in the text of README.md and of docs/, run as a user would.

In the text every block of Python is a whole program, or a file of tests for pytest. What it prints
stands in the block of text right after it, if there is one; `...` there stands for anything. `text
stderr` instead of `text` says that it is what the program prints to stderr, while it ends with
status 2.
"""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"

WAYS = pytest.mark.parametrize("way", [[], ["-m", "gofer", "run"]], ids=["python", "gofer run"])


def execute(*words, **options):
    return subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, timeout=100, **options
    )


def output(*words):
    result = execute(*words)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


# --- the small ones -----------------------------------------------------------------------------


@WAYS
def test_speak(way):
    text = output(*way, EXAMPLES / "speak.py")
    assert text.startswith("hello 0\nhello 1\nhello 2\n")
    # Those that speak on several workers at a time may interrupt each other within a line.
    fruit = [f"{word} {n}" for word in ("apple", "pear", "plum") for n in range(3)]
    assert sorted(re.findall(r"(?:apple|pear|plum) \d", text)) == fruit
    assert text.endswith("\nall have spoken\n")


@WAYS
def test_sieve(way):
    assert output(*way, EXAMPLES / "sieve.py", 10) == "2 3 5 7 11 13 17 19 23 29\n"


def test_sieve_of_many():
    primes = [int(word) for word in output(EXAMPLES / "sieve.py", 200).split()]
    assert primes == [n for n in range(2, 1224) if all(n % d for d in range(2, 36) if d < n)]
    assert len(primes) == 200


@WAYS
def test_forkjoin(way):
    assert output(*way, EXAMPLES / "forkjoin.py").splitlines() == [
        "the sum is 5000050000",
        "no sum: invalid literal for int() with base 10: 'a dozen'",
    ]


# --- digest -------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path):
    """Some files, and everything that makes walking difficult."""
    for n in range(60):
        folder = tmp_path / "tree" / f"folder {n % 7}" / ("deep" * (n % 3) or ".")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file {n}").write_bytes(bytes([n]) * n * 1000)
    tree = tmp_path / "tree"
    (tree / "circle").symlink_to(tree)
    (tree / "self").symlink_to("self")
    (tree / "nowhere").symlink_to("nothing")
    (tree / "__pycache__").mkdir()
    (tree / "__pycache__" / "written.pyc").write_bytes(b"by Python")
    os.mkfifo(tree / "pipe")
    return tree


SIZE = sum(n * 1000 for n in range(60))


@WAYS
@pytest.mark.parametrize("digesters", [1, 20])
def test_digest(way, tree, digesters):
    text = output(*way, EXAMPLES / "digest.py", tree, "--check", "--digesters", digesters)
    first, digest, check = text.splitlines()
    assert first.startswith(f"60 files, {SIZE:,} bytes, ")
    assert re.fullmatch("sha256 [0-9a-f]{64}", digest)
    assert check.endswith("the same")


def test_digest_is_that_of_sha256sum(tmp_path):
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    lines = (
        f"ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb  {tmp_path}/a\n"
        f"3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d  {tmp_path}/b\n"
    )
    digest = hashlib.sha256(lines.encode()).hexdigest()
    assert f"sha256 {digest}\n" in output(EXAMPLES / "digest.py", tmp_path)


def test_digest_of_what_can_not_be_read(tree):
    if os.geteuid() == 0:
        pytest.skip("root can read everything")
    (tree / "secret").write_text("x")
    (tree / "secret").chmod(0)
    (tree / "closed").mkdir(mode=0)
    result = execute(EXAMPLES / "digest.py", tree, "--check")
    assert result.returncode == 0
    assert result.stdout.startswith("60 files")
    assert "secret': Permission denied" in result.stdout
    assert "closed" in result.stderr


def test_digest_of_files_that_vanish(tree, tmp_path):
    """The digesters find only what the walk found; half of it is removed between the two."""
    program = tmp_path / "vanish.py"
    program.write_text(
        "import os, sys\n"
        f"sys.path.insert(0, {str(EXAMPLES)!r})\n"
        "import digest\n"
        "read = digest.digest_file\n"
        "def vanish(path):\n"
        "    if int(path.split()[-1]) % 2 and os.path.exists(path):\n"
        "        os.remove(path)\n"
        "    return read(path)\n"
        "digest.digest_file = vanish\n"
        "sys.exit(digest.main())\n"
    )
    text = output(program, tree, "--check")
    assert text.startswith("30 files")
    assert text.count("No such file or directory") == 30
    assert "the same" in text


def test_digest_says_when_the_check_differs(tree, tmp_path):
    program = tmp_path / "differ.py"
    program.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(EXAMPLES)!r})\n"
        "import digest\n"
        "found = digest.files\n"
        "def fewer(folder):\n"
        "    paths = list(found(folder))\n"
        "    digest.files = lambda _: iter(paths[1:])\n"
        "    return iter(paths)\n"
        "digest.files = fewer\n"
        "sys.exit(digest.main())\n"
    )
    result = execute(program, tree, "--check")
    assert result.returncode == 1
    assert "the same" not in result.stdout


def test_digest_shows_progress(tree):
    result = execute(EXAMPLES / "digest.py", tree, "--progress")
    assert result.returncode == 0
    assert result.stderr.endswith(f"60 files, {SIZE:,} bytes\n")


def test_digest_of_nothing(tmp_path):
    assert output(EXAMPLES / "digest.py", tmp_path, "--check").startswith("0 files, 0 bytes")
    result = execute(EXAMPLES / "digest.py", tmp_path / "nothing")
    assert result.returncode == 2
    assert "is no folder" in result.stderr


@WAYS
def test_digest_stops_on_interrupt(way, tree, tmp_path):
    program = tmp_path / "slow.py"
    program.write_text(
        "import sys\n"
        "from gofer import sleep\n"
        f"sys.path.insert(0, {str(EXAMPLES)!r})\n"
        "import digest\n"
        "def slow(path):\n"
        "    sys.stdout.write('digesting\\n')\n"
        "    sys.stdout.flush()\n"
        "    sleep(60)\n"
        "digest.digest_file = slow\n"
        "sys.exit(digest.main())\n"
    )
    process = subprocess.Popen(
        [sys.executable, *way, program, tree],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "digesting\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "\ndigest: stopped\n")


# --- the programs in the text -------------------------------------------------------------------


class Block(NamedTuple):
    source: str
    expected: str | None
    stream: str


BLOCKS = re.compile(
    r"^```python\n(?P<source>.*?)^```$(?:\s*^```text(?P<stream>| stderr)\n(?P<expected>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)


def blocks():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for match in BLOCKS.finditer(page.read_text()):
            line = page.read_text().count("\n", 0, match.start()) + 1
            stream = match["stream"] or " stdout"
            yield pytest.param(
                Block(match["source"], match["expected"], stream.strip()), id=f"{page.name}:{line}"
            )


def agrees(text, expected):
    pattern = re.escape(expected.strip()).replace(re.escape("..."), ".*?")
    return re.fullmatch(pattern, text.strip(), re.DOTALL) is not None


@pytest.mark.parametrize("block", list(blocks()))
def test_program_in_the_text(block, tmp_path):
    program = tmp_path / "prog.py"
    program.write_text(block.source)
    tests = "\ndef test_" in block.source
    result = execute(*["-m", "pytest", "-q"] * tests, "prog.py", cwd=tmp_path)
    fails = block.stream == "stderr"
    if tests:
        assert result.returncode == (" error in " in (block.expected or "")), result.stdout
    else:
        assert result.returncode == (2 if fails else 0), result.stderr
    if not fails:
        assert result.stderr == ""
    if block.expected is not None:
        text = result.stderr if fails else result.stdout
        text = text.replace(str(tmp_path) + os.sep, "")
        assert agrees(text, block.expected), text
