"""Where gofer runs. Imported before anything else of the package, so that elsewhere the import ends
with a sentence that says so, and not with a missing symbol. meson.build says the same.
"""

import os
import sys

SUPPORTED = "Linux and macOS on x86-64 and aarch64, CPython 3.11 to 3.15"


def unsupported() -> str | None:
    """What there is here that gofer does not run on; None if it does."""
    if sys.implementation.name != "cpython":
        return sys.implementation.name
    if not (3, 11) <= sys.version_info[:2] <= (3, 15):
        return f"CPython {sys.version_info[0]}.{sys.version_info[1]}"
    if sys.platform not in ("linux", "darwin"):
        return sys.platform
    machine = os.uname().machine
    if machine not in ("x86_64", "aarch64", "arm64") or sys.maxsize < 2**32:
        return f"a {sys.maxsize.bit_length() + 1}-bit Python on {machine}"
    return None


def require() -> None:
    """Raise ImportError where gofer does not run."""
    here = unsupported()
    if here is not None:
        raise ImportError(f"gofer runs on {SUPPORTED}; this is {here}")


require()

# A sub-interpreter is refused by the core: before anything else is imported into it.
from gofer import _core as _core  # noqa: E402
