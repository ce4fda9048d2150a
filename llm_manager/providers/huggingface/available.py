"""How much main memory is free, on whatever system this is."""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath


def available_memory_bytes(root: Path = Path("/")) -> int | None:
    """Main memory that a program may still take without the system beginning to swap.

    Inside a container it is what the container may still take.

    Args:
        root: where ``/proc`` and ``/sys`` are.

    Returns:
        Bytes, or None if this system does not tell.
    """
    found = [size for ask in _WAYS if (size := ask(root)) is not None][:1]
    limit = _container_free_bytes(root)
    return min([*found, *([limit] if limit is not None else [])], default=None)


def _from_proc(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        return None


def _from_psutil(_root: Path) -> int | None:
    try:
        psutil = importlib.import_module("psutil")
    except ImportError:
        return None
    return int(psutil.virtual_memory().available)


def _from_windows(_root: Path) -> int | None:
    if sys.platform != "win32":
        return None

    class MemoryStatus(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in (
                "total", "available", "page_total", "page_available",
                "virtual_total", "virtual_available", "extended_available",
            )),
        )  # fmt: skip

    status = MemoryStatus(length=ctypes.sizeof(MemoryStatus))
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None
    return int(status.available)


def _from_sysconf(_root: Path) -> int | None:
    # What is free where the system says it; else all there is, which still refuses the impossible.
    for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"):
        try:
            return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, OSError, ValueError):
            continue
    return None


_WAYS: tuple[Callable[[Path], int | None], ...] = (
    _from_proc, _from_psutil, _from_windows, _from_sysconf,
)  # fmt: skip


# Files of control groups 2, and 1: limit, use, statistics, and what of the use is only a cache.
_VERSION_2 = ("memory.max", "memory.current", "memory.stat", "inactive_file")
_VERSION_1 = (
    "memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat", "total_inactive_file",
)  # fmt: skip


def _container_free_bytes(root: Path) -> int | None:
    """What the limits of the control groups around this process leave; None without a limit."""
    left = [
        size
        for folder, files in _control_groups(root)
        if (size := _left_in_group(folder, *files)) is not None
    ]
    return min(left, default=None)


def _control_groups(root: Path) -> Iterator[tuple[Path, tuple[str, str, str, str]]]:
    """The folders of our own group and of those around it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    groups = root / "sys/fs/cgroup"
    for line in [*lines, "0::/", "0:memory:/"]:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base, files = (groups / "memory", _VERSION_1) if controllers else (groups, _VERSION_2)
        own = PurePosixPath(path)
        for place in (own, *own.parents):
            yield base / str(place).lstrip("/"), files


def _left_in_group(folder: Path, limit: str, used: str, statistics: str, cache: str) -> int | None:
    try:
        limit_bytes = int((folder / limit).read_text())
        used_bytes = int((folder / used).read_text())
        lines = (folder / statistics).read_text().splitlines()
        # File pages that nobody uses are counted, but given up as soon as memory is needed.
        cache_bytes = int(dict(line.split() for line in lines).get(cache, 0))
    except (OSError, ValueError):
        return None
    # Without a limit version 1 says a number near 2**63.
    return None if limit_bytes >= 2**60 else max(0, limit_bytes - used_bytes + cache_bytes)
