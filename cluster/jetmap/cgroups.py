"""Limits of this process's control groups, of versions 2 and 1: cores and memory.

A limit holds for all processes below its group, so each parent's counts, too. In a container, the
groups above its own cannot be seen, and what it sees as the root is its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def quota() -> float | None:
    """Return the CPU quota in cores, the tightest of all groups; None if there is none."""
    quotas = []
    for directory in _unified():
        limit, _, period = _text(directory / "cpu.max").partition(" ")
        quotas.append((_number(limit), _number(period)))
    for directory in _of("cpu"):
        limit, period = (_text(directory / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        quotas.append((_number(limit), _number(period)))
    return min((a / b for a, b in quotas if a and b and a > 0), default=None)


def memory_limits() -> list[int]:
    """Return the limits of memory, in bytes. Version 1 has a very large one for none."""
    files = [directory / "memory.max" for directory in _unified()]
    files += [directory / "memory.limit_in_bytes" for directory in _of("memory")]
    return [limit for file in files if (limit := _number(_text(file))) is not None]


def free_memory() -> list[int]:
    """Return what each group with a limit of memory has left, in bytes.

    The kernel drops what was read from files and not used for long when it needs the room.
    """
    found = []
    names = ("memory.max", "memory.current", "inactive_file")
    groups = [(directory, *names) for directory in _unified()]
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    groups += [(directory, *names) for directory in _of("memory")]
    for directory, of_limit, of_use, of_files in groups:
        limit, used = _number(_text(directory / of_limit)), _number(_text(directory / of_use))
        if limit is not None and used is not None:
            found.append(limit - used + (_field(directory / "memory.stat", of_files) or 0))
    return found


def memory_kills() -> int | None:
    """Return how many processes of this group the kernel killed for want of memory, if known."""
    files = [directory / "memory.events" for directory in _unified()]  # The root has no such file.
    files += [directory / "memory.oom_control" for directory in _of("memory")]
    counts = (_field(file, "oom_kill") for file in files)
    return next((count for count in counts if count is not None), None)


def _unified() -> list[Path]:
    """List this process's group of version 2 and its parents, the root last."""
    root = Path("/sys/fs/cgroup")
    own = next((path for names, path in _memberships() if not names), "/")
    return _upwards(root, own)


def _of(controller: str) -> list[Path]:
    """List this process's group of a controller of version 1 and its parents."""
    root = Path(f"/sys/fs/cgroup/{controller}")
    own = next((path for names, path in _memberships() if controller in names), None)
    # (A kernel with version 2 alone has no such line, and no such directory.)
    return _upwards(root, own or "/")


def _memberships() -> Iterator[tuple[list[str], str]]:
    """Give the controllers and the path of each group of this process; of version 2, none."""
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        yield names.split(",") if names else [], path


def _upwards(root: Path, own: str) -> list[Path]:
    path = root / own.lstrip("/")
    return [path, *(parent for parent in path.parents if parent == root or root in parent.parents)]


def _field(file: Path, name: str) -> int | None:
    """Return a number of a file with a name and a number in each line; None if it is not there."""
    for line in _text(file).splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return _number(value)
    return None


def _text(file: Path) -> str:
    """Return what a file holds; nothing if it is not there."""
    try:
        return file.read_text().strip()
    except (OSError, ValueError):
        return ""


def _number(text: str) -> int | None:
    """Return a number; None for ``max``, and for what is none."""
    try:
        return int(text)
    except ValueError:
        return None
