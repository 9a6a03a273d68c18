"""Find the elements of a whole body that are all large, as views of it.

Large means long bytes in MessagePack, and long strings without escapes in JSON. Their ends are
found without a copy, and without Python looking at each byte. A body with anything else in it,
and a faulty one, is left to the splitters, which know all cases and name each fault.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from jetmap.wire.arrays import length
from jetmap.wire.messages import Format

# Bytes of an element from which on finding its end costs less than splitting it.
LEAST = 1000

_HEADS = {0xC4: 2, 0xC5: 3, 0xC6: 5}
# White space; more in one place would be looked at in one step, which keeps other requests waiting.
_SPACE = rb"[ \t\r\n]{0,1000}+"
_OPEN = re.compile(_SPACE + rb"\[" + _SPACE)
_COMMA = re.compile(_SPACE + b"," + _SPACE)
_CLOSE = re.compile(_SPACE + rb"\]" + _SPACE)
_skip = msgspec.json.Decoder(msgspec.Raw).decode


class NotLargeError(Exception):
    """Some element is small, too large or of another kind, or the body is malformed."""


def large_elements(body: bytes, format: Format, most: int) -> Iterator[memoryview]:
    """Yield each element of an array of large elements. Raises NotLargeError, at any time.

    most: bytes that an element may have.
    """
    view = memoryview(body)
    ends = _strings(body, most) if format == "json" else _bytes(body, most)
    return (view[start:end] for start, end in ends)


def _bytes(body: bytes, most: int) -> Iterator[tuple[int, int]]:
    count, first = length(body), body[:1]
    end = {b"\xdc": 3, b"\xdd": 5}.get(first, 1)
    for _ in range(count):
        start = end
        head = _HEADS.get(body[start] if start < len(body) else 0, 0)
        size = int.from_bytes(body[start + 1 : start + head], "big") if head else 0
        end = start + head + size
        if size < LEAST or end - start > most or end > len(body):
            raise NotLargeError
        yield start, end
    if not count or end != len(body):
        raise NotLargeError


def _strings(body: bytes, most: int) -> Iterator[tuple[int, int]]:
    found = _OPEN.match(body)
    while found is not None:
        start = found.end()
        if body[start : start + 1] != b'"':
            raise NotLargeError
        end = body.find(b'"', start + 1, start + most) + 1
        if end - start < LEAST:
            raise NotLargeError
        element = body[start:end]
        if not element.isascii() or b"\\" in element:
            raise NotLargeError
        try:
            _skip(element)
        except msgspec.DecodeError as exc:
            raise NotLargeError from exc
        yield start, end
        found = _COMMA.match(body, end)
        if found is None:
            found = _CLOSE.match(body, end)
            if found is not None and found.end() == len(body):
                return
            break
    raise NotLargeError
