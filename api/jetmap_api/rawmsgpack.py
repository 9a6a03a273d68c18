"""Where MessagePack is wrong: msgspec says what is, and often not at which byte.

For bodies that are refused; those that are whole are never walked here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

_STEP = 1 << 16  # Values between two of which another request may come.

# By first byte: bytes of the head (with an extension's type), then of the length within it.
_SIZED = {
    **{0xC4 + i: (1 + (1 << i), 1 << i) for i in range(3)},
    **{0xC7 + i: (2 + (1 << i), 1 << i) for i in range(3)},
    **{0xD9 + i: (1 + (1 << i), 1 << i) for i in range(3)},
}
_FIXED = {
    0xC0: 1, 0xC2: 1, 0xC3: 1, 0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2,
    0xD1: 3, 0xD2: 5, 0xD3: 9, 0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18,
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """position: of the first byte that is no UTF-8, or of the container that is too deep."""

    kind: Literal["utf8", "depth"]
    position: int


def find_fault(data: bytes, limit: int) -> Fault | None:
    """The first text that is no UTF-8, or container that nests deeper than ``limit``, in values
    one behind the other. None: there is none before the data ends or makes no sense."""
    return next((fault for fault in faults(data, limit) if fault is not None), None)


def faults(data: bytes, limit: int) -> Iterator[Fault | None]:
    """``find_fault`` in steps: None after each, the fault at last, if there is one."""
    open: list[int] = []  # Of each container that is not over, the values to come.
    at, length, steps = 0, len(data), 0
    while at < length:
        steps += 1
        if steps % _STEP == 0:
            yield None
        first = data[at]
        inside = _contained(data, at, first)
        if inside is not None:
            head, count = inside
            if len(open) >= limit:
                yield Fault("depth", at)
                return
            at += head
            open.append(count + 1)
        else:
            head, size = _spread(data, at, first)
            if not head:
                return
            if 0xA0 <= first < 0xC0 or 0xD9 <= first <= 0xDB:
                try:
                    str(data[at + head : at + size], "utf-8")
                except UnicodeDecodeError as exc:
                    yield Fault("utf8", at + head + exc.start)
                    return
            at += size
        while open:
            open[-1] -= 1
            if open[-1]:
                break
            open.pop()


def _contained(data: bytes, at: int, first: int) -> tuple[int, int] | None:
    """Of an array or a map: bytes of its head, and how many values are in it."""
    if 0x80 <= first < 0xA0:
        return 1, (first & 0x0F) * (1 if first & 0x10 else 2)
    if 0xDC <= first <= 0xDF:
        head = 3 if first in (0xDC, 0xDE) else 5
        count = int.from_bytes(data[at + 1 : at + head], "big")
        return head, count * (1 if first < 0xDE else 2)
    return None


def _spread(data: bytes, at: int, first: int) -> tuple[int, int]:
    """Of any other value: bytes of its head, and of all of it. Nothing of what is no value."""
    if first < 0x80 or first >= 0xE0:
        return 1, 1
    if 0xA0 <= first < 0xC0:
        return 1, 1 + (first & 0x1F)
    if first in _SIZED:
        head, width = _SIZED[first]
        return head, head + int.from_bytes(data[at + 1 : at + 1 + width], "big")
    size = _FIXED.get(first, 0)
    return min(size, 1), size
