"""Split a JSON array that is there as a whole."""

from __future__ import annotations

import msgspec

from jetmap.errors import Malformed
from jetmap.settings import LimitSettings
from jetmap.wire.check import deeper_than, depth_error, not_utf8, syntax, too_deep, utf8_error

from .splitter import BOM, item_too_large

SPACE = b" \t\r\n"
decode = msgspec.json.Decoder(list[msgspec.Raw]).decode


def split_array(
    array: bytes, limits: LimitSettings, *, offset: int = 0, first: int = 0, advice: str = ""
) -> list[msgspec.Raw]:
    """Split a whole array into its checked elements.

    offset: its position in the body. first: the index of its first element. advice: what to send
    instead of something else. Raises Malformed, with the position; TooLarge.
    """
    position = utf8_error(array)
    if position is not None:
        raise not_utf8(position + offset)
    most = limits.max_depth
    try:
        elements = decode(array)
    except msgspec.ValidationError as exc:
        raise Malformed(f"the body is not an array ({exc})" + advice_ending(advice), 0) from exc
    except msgspec.DecodeError as exc:
        if offset == 0 and array.startswith(BOM):
            rest = array[len(BOM) :]
            return split_array(rest, limits, offset=offset + len(BOM), first=first, advice=advice)
        if not array.strip(SPACE):
            raise Malformed("the body is empty" + advice_ending(advice), 0) from exc
        raise syntax(exc, array, offset) from exc
    except RecursionError as exc:
        raise too_deep(depth_error(array, most + 1) + offset, most) from exc
    # An element may nest max_depth levels; the array itself is one more.
    if deeper_than(array, most + 1):
        raise too_deep(depth_error(array, most + 1) + offset, most)
    # Each other element takes a byte at least.
    if len(array) - len(elements) > limits.max_item_bytes:
        for index, element in enumerate(elements, first):
            size = memoryview(element).nbytes
            if size > limits.max_item_bytes:
                raise item_too_large(index, size, limits.max_item_bytes)
    return elements


def advice_ending(advice: str) -> str:
    """Return the end of a message that gives advice."""
    return f": {advice}" if advice else ""
