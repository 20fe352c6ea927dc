"""The machine and the checkout, as found."""

import os
import platform
from pathlib import Path

from environments import CHECKOUT, command


def field(file: str, name: str) -> str:
    try:
        for line in Path(file).read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    except OSError:
        pass
    return ""


def memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def describe() -> dict[str, str]:
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        system = platform.platform()
    return {
        "cpu": field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory() / 2**30:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "system": system,
    }


def commit() -> str:
    try:
        return command("git", "-C", CHECKOUT, "describe", "--always", "--dirty").strip()
    except (RuntimeError, OSError):
        return "not a checkout"
