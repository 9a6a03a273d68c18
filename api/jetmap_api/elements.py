"""Checks of encoded elements, which are passed on undecoded: UTF-8, depth, size."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from jetmap.errors import Malformed
from jetmap.settings import LimitSettings
from jetmap.wire.arrays import header
from jetmap.wire.check import (
    deeper_than,
    depth_error,
    located,
    not_utf8,
    syntax,
    too_deep,
    utf8_error,
)
from jetmap.wire.json_lines import item_too_large

from .media import USE_JSON
from .problems import Problem, malformed, over_limit
from .rawmsgpack import Fault, find_fault

_BYTE = re.compile(r" \(byte \d+\)$")
_WRONG = (msgspec.MsgspecError, RecursionError, ValueError, TypeError, OverflowError)
_SPACE = b" \t\r\n"
_split_json = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_msgpack = msgspec.msgpack.Decoder().decode


def check_msgpack(
    elements: Sequence[bytes | msgspec.Raw], some: bytes, first: int, at: int, limits: LimitSettings
) -> None:
    """Checks encoded items. some: all of them. first: the first one's index; at: its position in
    the body. Raises Malformed, with the position."""
    try:
        values = _decode_msgpack(header(len(elements)) + some)
    except _WRONG as exc:
        fault = find_fault(some, limits.max_depth)
        if fault is not None:
            raise _located(fault, at, limits) from exc
        for index, element in enumerate(elements, first):
            try:
                _decode_msgpack(element)
            except _WRONG as error:
                raise _wrong_item(error, index, at, limits) from error
            at += memoryview(element).nbytes
        raise located(str(exc), at, None) from exc
    most = limits.max_depth
    # Each level takes a byte at least: only long items can be too deep.
    long = (
        [
            value
            for value, element in zip(values, elements, strict=True)
            if isinstance(value, list | dict) and len(memoryview(element)) > most
        ]
        if len(some) > most
        else []
    )
    if long and _levels(long, most + 1) > most + 1:
        fault = find_fault(some, limits.max_depth)
        raise too_deep(at + (fault.position if fault else 0), limits.max_depth)


def too_deep_msgpack(some: bytes, at: int, limits: LimitSettings) -> Malformed:
    """Of items that cannot be skipped, the first of them ``at`` this position in the body."""
    fault = find_fault(some, limits.max_depth)
    return too_deep(at, limits.max_depth) if fault is None else _located(fault, at, limits)


def json_piece(piece: bytes, offset: int, first: int, limits: LimitSettings) -> list[msgspec.Raw]:
    """The checked elements of one array. offset: of the piece in the body; first: its index."""
    position = utf8_error(piece)
    if position is not None:
        raise not_utf8(position + offset)
    try:
        elements = _split_json(piece)
    except msgspec.ValidationError as exc:
        raise not_a_list(exc) from exc
    except msgspec.DecodeError as exc:
        if not piece.strip(_SPACE):
            raise malformed(f"the body is empty: {USE_JSON}", position=0) from exc
        raise syntax(exc, piece, offset) from exc
    except RecursionError as exc:
        raise too_deep(depth_error(piece, limits.max_depth + 1) + offset, limits.max_depth) from exc
    # an item may nest max_depth levels; the list itself is one more
    if deeper_than(piece, limits.max_depth + 1):
        raise too_deep(depth_error(piece, limits.max_depth + 1) + offset, limits.max_depth)
    check_sizes(elements, len(piece), first, limits)
    return elements


def check_sizes(elements: list[msgspec.Raw], size: int, first: int, limits: LimitSettings) -> None:
    check_count(first + len(elements), limits)
    # every other element takes a byte at least
    if size - len(elements) <= limits.max_item_bytes:
        return
    for index, element in enumerate(elements, first):
        nbytes = memoryview(element).nbytes
        if nbytes > limits.max_item_bytes:
            raise item_too_large(index, nbytes, limits.max_item_bytes)


def check_count(count: int, limits: LimitSettings) -> None:
    if count > limits.max_list:
        raise over_limit(
            f"the list has more than {limits.max_list} items (max_list): "
            "send it as JSON lines, which may be of any length",
            setting="max_list",
            limit=limits.max_list,
        )


def not_a_list(exc: Exception) -> Problem:
    return malformed(f"the body is no array ({exc}): {USE_JSON}", position=0)


def _located(fault: Fault, at: int, limits: LimitSettings) -> Malformed:
    position = at + fault.position
    if fault.kind == "utf8":
        return not_utf8(position)
    return too_deep(position, limits.max_depth)


def _wrong_item(exc: Exception, index: int, at: int, limits: LimitSettings) -> Malformed:
    """at: the item's position in the body."""
    if isinstance(exc, RecursionError):
        return too_deep(at, limits.max_depth)
    # Where the decoder noticed it may be far behind.
    return located(f"item {index}: {_BYTE.sub('', str(exc))}", at, None)


def _levels(value: Sequence[object], most: int) -> int:
    """How deep lists and maps nest; counted to one more than ``most``."""
    levels = 0
    level: Sequence[object] = [value]
    while level and levels <= most:
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)  # type: ignore[attr-defined]
            if isinstance(inner, list | dict)
        ]
        levels += 1
    return levels
