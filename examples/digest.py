"""SHA-256 of each file below a folder: bounded parallelism as in Go's "Pipelines and cancellation".

`map` takes the names of files one after the other, and has N goroutines digest them; memory stays
bounded, since it takes a name only when one of the N is free. Another goroutine shows progress.
Both belong to a `Group`: when something goes wrong anywhere, or Ctrl-C is pressed, everything stops
before the `with` ends.

    python examples/digest.py                 the standard library of this Python
    python examples/digest.py FOLDER --check  the same again, one file after the other, and compare
"""

import argparse
import hashlib
import os
import stat
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass

from gofer import Group, Ticker, map


@dataclass(frozen=True)
class Result:
    """One file: its size and digest, or why it could not be read."""

    path: str
    size: int = 0
    digest: str = ""
    error: str = ""


# --- the work -----------------------------------------------------------------------------------


def digest(folder: str, digesters: int, progress: bool) -> list[Result]:
    results: list[Result] = []
    with Group() as group:
        if progress:
            group.go(keep_showing, results)
        results.extend(map(digest_file, files(folder), limit=digesters))
        group.cancel()
    if progress:
        show_progress(results)
        print(file=sys.stderr)
    return results


def keep_showing(results: list[Result]) -> None:
    for _ in Ticker(0.1):
        show_progress(results)


# --- files --------------------------------------------------------------------------------------


def files(folder: str) -> Iterator[str]:
    """Every regular file below `folder`, but what Python itself writes there.

    Links are not followed, so they can not lead in circles; what can not be read is passed by.
    """
    for parent, folders, names in os.walk(folder, onerror=complain):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            path = os.path.join(parent, name)
            try:
                if stat.S_ISREG(os.lstat(path).st_mode):
                    yield path
            except OSError as error:  # vanished, or in a folder that only can be listed
                complain(error)


def complain(error: OSError) -> None:
    print(f"digest: passed by: {error}", file=sys.stderr)


def digest_file(path: str) -> Result:
    try:
        with open(path, "rb") as file:
            hashed = hashlib.file_digest(file, "sha256")
            return Result(path, file.tell(), hashed.hexdigest())
    except OSError as error:
        return Result(path, error=error.strerror or str(error))


# --- the program --------------------------------------------------------------------------------


def digest_of_digests(results: list[Result]) -> str:
    """One digest for all that was read: of the lines of `sha256sum`, in order of the paths."""
    whole = hashlib.sha256()
    for result in sorted(results, key=lambda result: result.path):
        if not result.error:
            whole.update(os.fsencode(f"{result.digest}  {result.path}\n"))
    return whole.hexdigest()


def show_progress(results: list[Result]) -> None:
    size = sum(result.size for result in results)
    print(f"\r{len(results):,} files, {size:,} bytes", end="", file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="SHA-256 of every file below a folder.")
    stdlib = sysconfig.get_path("stdlib")
    parser.add_argument("folder", nargs="?", default=stdlib, help="by default %(default)s")
    parser.add_argument("--digesters", type=int, default=20, metavar="N", help="how many (20)")
    parser.add_argument(
        "--progress",
        action="store_true",
        default=sys.stderr.isatty(),
        help="count on stderr, as it does on a terminal",
    )
    parser.add_argument("--check", action="store_true", help="compare with a sequential run")
    options = parser.parse_args()
    if not os.path.isdir(options.folder):
        parser.error(f"{options.folder!r} is no folder")
    if options.digesters < 1:
        parser.error("at least one digester is needed")
    return options


def report(options: argparse.Namespace) -> int:
    start = time.perf_counter()
    results = digest(options.folder, options.digesters, options.progress)
    seconds = time.perf_counter() - start

    read = [result for result in results if not result.error]
    size = sum(result.size for result in read)
    whole = digest_of_digests(results)
    print(f"{len(read):,} files, {size:,} bytes, {seconds:.2f} s, {options.digesters} digesters")
    print(f"sha256 {whole}")
    for result in results:
        if result.error:
            print(f"not read: {result.path!r}: {result.error}")
    if not options.check:
        return 0

    start = time.perf_counter()
    alone = digest_of_digests([digest_file(path) for path in files(options.folder)])
    seconds = time.perf_counter() - start
    same = alone == whole
    print(f"check: one after the other {seconds:.2f} s, {'the same' if same else alone}")
    return 0 if same else 1


def main() -> int:
    try:
        return report(arguments())
    except KeyboardInterrupt:
        print("\ndigest: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
