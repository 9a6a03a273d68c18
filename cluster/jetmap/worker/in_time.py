"""Decode items, and encode values, within the time that an item may take.

A pickle, a validator or a ``__post_init__`` may run code of users that never ends. Where a function
has a timeout, such items are decoded in their own call, and their values encoded in it: the timeout
then ends that item and no other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from jetmap.codecs import Codec
from jetmap.codecs.late import Delayed
from jetmap.codecs.untyped import SCALARS
from jetmap.functions.task import Function
from jetmap.wire.messages import Chunk, ErrorRecord, Format, Report
from jetmap.wire.scattered import Scattered

from .compute import Limits, Part, prepare
from .error_records import Undecodable


class Encoded:
    """A value that is encoded already, or the record that says why it cannot be."""

    __slots__ = ("data", "record")

    def __init__(self, data: bytes, record: ErrorRecord | None) -> None:
        self.data = data
        self.record = record


class TimedPart(Part):
    """A part that also takes values that are encoded already."""

    def early(self, value: Any) -> Any:
        """Encode a value now if that may run code of users; otherwise return it."""
        function = self._function
        if not self._chunk.values or function is None or function.value.is_quick(value):
            return value
        return Encoded(*self._encode(0, value, self._chunk.format))

    def _encode_all(self, function: Function, values: list[Any]) -> bytes | Scattered | None:
        if Encoded in set(map(type, values)):
            return None
        return super()._encode_all(function, values)

    def _encode(self, index: int, value: Any, format: Format) -> tuple[bytes, ErrorRecord | None]:
        if type(value) is not Encoded:
            return super()._encode(index, value, format)
        if value.record is not None:
            value.record.index = index
        return value.data, value.record


def begin_in_time(
    chunk: Chunk,
    function: Function,
    progress: Any,
    emit: Callable[[Report], None],
    limits: Limits,
    state: Mapping[str, Any] | None,
    decoded: list[Any] | None = None,
) -> tuple[Part, Callable[[Any], Any], list[Any]]:
    """Begin a chunk whose items have a timeout; return its part, and what ``prepare`` returns."""
    part = TimedPart(chunk, function, emit, limits)
    plain, items = prepare_in_time(chunk, function, part, progress, state, decoded)
    encodes = chunk.values and _runs_code(lambda: function.value)
    has_late = Delayed in set(map(type, items))
    if not encodes and not has_late:
        return part, plain, items
    early = part.early

    def call(item: Any) -> Any:
        value = plain(item)
        return value if type(value) in SCALARS else early(value)

    def call_late(item: Any) -> Any:
        item = loaded(item)
        if type(item) is Undecodable:
            return part.refuse(item)
        return call(item) if encodes else plain(item)

    return part, call_late if has_late else call, items


def prepare_in_time(
    chunk: Chunk,
    function: Function,
    part: Part,
    progress: Any,
    state: Mapping[str, Any] | None,
    decoded: list[Any] | None = None,
) -> tuple[Callable[[Any], Any], list[Any]]:
    """Prepare a chunk; what may take any time is left for later, or is on its first item's time.

    Keyword parameters that run code of users are on that of a first call, which may load things.

    Args:
        progress: The ``ProgressPages``; None if the same keyword parameters were decoded before.
    """
    if progress is None or not chunk.kwargs or not _runs_code(lambda: function.kwargs):
        return prepare(chunk, function, part, state, decoded, late=True)
    was_cold = progress.is_cold
    progress.set_cold(True)
    progress.enter(chunk.start, time.monotonic_ns())
    try:
        return prepare(chunk, function, part, state, decoded, late=True)
    finally:
        progress.leave()
        progress.set_cold(was_cold)


def loaded(item: Any) -> Any:
    """Decode an item if that was delayed."""
    if type(item) is not Delayed:
        return item
    try:
        return item.load()
    except BaseException as error:  # Whatever the code that a pickle brings may raise.
        return Undecodable(error)


def _runs_code(codec: Callable[[], Codec]) -> bool:
    try:
        return codec().runs_code
    except TypeError:  # One of its types cannot travel.
        return False
