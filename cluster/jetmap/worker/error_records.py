"""Records of failed items, which travel in the place of their values."""

from __future__ import annotations

import traceback
from types import FrameType

from jetmap.wire.messages import ErrorRecord, encode

MESSAGE_LIMIT = 8_192  # Bytes of an error's message, and of its traceback.


class Undecodable:
    """An item whose bytes do not fit the type."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class DecodingError(Exception):
    """Carries the decoding error of an item to the place where failures are recorded."""


def weight_of(record: ErrorRecord) -> int:
    """Return the bytes of an error record in a report."""
    return len(encode(record))


def record_of(index: int, kind: str, error: BaseException, formatted: str | None) -> ErrorRecord:
    """Make the record of an item that failed. formatted: the traceback of its error."""
    try:
        message = str(error)
    except BaseException as failure:  # It is the function's own, and must not cost the worker.
        message = f"<str() of it raised {type(failure).__name__}>"
    encoded = _utf8(message)
    message = encoded[:MESSAGE_LIMIT].decode("utf-8", "ignore")
    if len(encoded) > MESSAGE_LIMIT:
        message += "…"
    return ErrorRecord(index, kind, type(error).__name__, message, formatted)


def traceback_of(error: BaseException) -> str:
    """Format the traceback from the user's own frame on, at most 8 KiB of its end."""
    inner = error.__traceback__
    while inner is not None and _is_ours(inner.tb_frame):
        inner = inner.tb_next
    try:
        lines = traceback.format_exception(type(error), error, inner or error.__traceback__)
    except BaseException:
        return ""
    encoded = _utf8("".join(lines))
    if len(encoded) <= MESSAGE_LIMIT:
        return encoded.decode()
    return "…" + encoded[-MESSAGE_LIMIT:].decode("utf-8", "ignore")


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith(__package__)


def _utf8(text: str) -> bytes:
    """Encode text that may hold lone surrogates, which UTF-8 cannot carry."""
    return text.encode("utf-8", "backslashreplace")
