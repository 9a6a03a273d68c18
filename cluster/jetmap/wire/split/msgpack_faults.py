"""Find the faulty byte of a MessagePack body that is refused.

msgspec names the fault, but often not the position. Bodies that are well-formed never come here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
class MsgpackFault:
    """position: of the first byte that is not UTF-8, or of the container that is too deep."""

    kind: Literal["utf8", "depth"]
    position: int


def find_fault(data: bytes, limit: int) -> MsgpackFault | None:
    """Find the first text that is not UTF-8, or container that nests deeper than ``limit``.

    data: values one behind the other. Returns None if it ends, or is not MessagePack, before that.
    """
    open: list[int] = []  # for each open container, the values to come
    at, length = 0, len(data)
    while at < length:
        first = data[at]
        inside = _contained(data, at, first)
        if inside is not None:
            head, count = inside
            if len(open) >= limit:
                return MsgpackFault("depth", at)
            at += head
            open.append(count + 1)
        else:
            head, size = _spread(data, at, first)
            if not head:
                return None
            if 0xA0 <= first < 0xC0 or 0xD9 <= first <= 0xDB:
                try:
                    str(data[at + head : at + size], "utf-8")
                except UnicodeDecodeError as exc:
                    return MsgpackFault("utf8", at + head + exc.start)
            at += size
        while open:
            open[-1] -= 1
            if open[-1]:
                break
            open.pop()
    return None


def size_of(data: bytes) -> int:
    """Return the size in bytes of the value that ``data`` begins, as far as its head tells.

    0 for containers, whose heads give no size.
    """
    return _spread(data, 0, data[0])[1]


def _contained(data: bytes, at: int, first: int) -> tuple[int, int] | None:
    """Return a container's size of head and number of values; None for any other value."""
    if 0x80 <= first < 0xA0:
        return 1, (first & 0x0F) * (1 if first & 0x10 else 2)
    if 0xDC <= first <= 0xDF:
        head = 3 if first in (0xDC, 0xDE) else 5
        count = int.from_bytes(data[at + 1 : at + head], "big")
        return head, count * (1 if first < 0xDE else 2)
    return None


def _spread(data: bytes, at: int, first: int) -> tuple[int, int]:
    """Return the bytes of a scalar's head and of all of it; zeros for any other byte."""
    if first < 0x80 or first >= 0xE0:
        return 1, 1
    if 0xA0 <= first < 0xC0:
        return 1, 1 + (first & 0x1F)
    if first in _SIZED:
        head, width = _SIZED[first]
        return head, head + int.from_bytes(data[at + 1 : at + 1 + width], "big")
    size = _FIXED.get(first, 0)
    return min(size, 1), size
