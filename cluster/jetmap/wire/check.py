"""Check what msgspec does not check in raw JSON: UTF-8, and depth.

Errors give the position: a byte, or a line and a byte in it.
"""

from __future__ import annotations

import re
from itertools import accumulate

from jetmap.errors import Malformed

# Tables that delete everything but brackets and quotes, and turn braces into brackets.
_SHAPE = bytes.maketrans(b"{}", b"[]")
_NO_SHAPE = bytes(set(range(256)) - set(b'[]{}"'))
_STRING = re.compile(rb'"[^"]*"')
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)
_OPEN = 0x5B

_POSITION = re.compile(r" \(byte (\d+)\)$")
_ROUNDS = 16


def utf8_error(data: bytes) -> int | None:
    """Find the first byte that is not UTF-8; return its position, or None."""
    if data.isascii():
        return None
    try:
        data.decode()
    except UnicodeDecodeError as exc:
        return exc.start
    return None


def deeper_than(data: bytes, limit: int) -> bool:
    """Return whether well-formed JSON (one value or several) nests deeper than ``limit``.

    Leaves are removed in rounds, one level a round, which is far faster than a scan.
    """
    if data.count(b"[") + data.count(b"{") <= limit:
        return False
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    shape = data.translate(_SHAPE, _NO_SHAPE).replace(b'""', b"")
    if b'"' in shape:
        shape = _STRING.sub(b"", shape)
    for depth in range(_ROUNDS):
        if not shape:
            return False
        if depth == limit:
            return True
        shape = shape.replace(b"[]", b"")
    steps = (1 if byte == _OPEN else -1 for byte in shape)
    return _ROUNDS + max(accumulate(steps), default=0) > limit


def depth_error(data: bytes, limit: int) -> int:
    """Find the first bracket that is deeper than ``limit``; return its position."""
    depth = 0
    for token in _TOKEN.finditer(data):
        bracket = token[0]
        if bracket in (b"[", b"{"):
            depth += 1
            if depth > limit:
                return token.start()
        elif bracket in (b"]", b"}"):
            depth -= 1
    return len(data)


def too_deep(position: int, limit: int, line: int | None = None) -> Malformed:
    return located(
        f"nested deeper than {limit} levels",
        position,
        line,
        advice="flatten the items, or raise max_depth",
    )


def not_utf8(position: int, line: int | None = None) -> Malformed:
    return located("not UTF-8", position, line, advice="encode the input as UTF-8")


def syntax(exc: Exception, data: bytes, offset: int, line: int | None = None) -> Malformed:
    """Make the error for malformed JSON from a decoder's. offset: the position of ``data``."""
    text = str(exc)
    found = _POSITION.search(text)
    if found is not None:
        # msgspec counts one byte too far here, and only here.
        beyond = 1 if "JSON is malformed: trailing characters" in text else 0
        return located(text[: found.start()], int(found[1]) - beyond + offset, line)
    if "truncated" in text:
        text = "it ends too early"
        if b"\\ud" in data[-24:].lower():
            text += ", or a string holds half of a surrogate pair"
    return located(text, len(data) + offset, line)


def located(text: str, position: int, line: int | None, advice: str = "") -> Malformed:
    """Make an error with a position: in bytes, from the line's start if a line is given."""
    where = f"at byte {position}" if line is None else f"in line {line}, at byte {position}"
    return Malformed(f"{text} {where}" + (f": {advice}" if advice else ""), position, line)
