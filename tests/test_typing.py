"""The types that a user's checker sees: typing/examples.py, by mypy and pyright, both strict."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = Path("tests", "typing", "examples.py")


@pytest.mark.parametrize(
    ("checker", "options"),
    [("mypy", ["--config-file=pyproject.toml"]), ("pyright", ["--pythonpath", sys.executable])],
)
def test_examples(checker, options):
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed")
    command = [sys.executable, "-m", checker, *options, str(EXAMPLES)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert result.returncode == 0, result.stdout + result.stderr
