"""Outcomes as they leave the dispatcher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import msgspec

from jetmap.errors import ITEM_ERRORS, ItemError
from jetmap.functions.causes import exception_of
from jetmap.wire.messages import ErrorRecord

ITEM_BYTES = 64  # Bytes of a Python object that is kept beside its outcome, at least.

X = TypeVar("X")
Y = TypeVar("Y")


class Decoded:
    """Values that were decoded where they were. size: bytes that they took there."""

    __slots__ = ("_size", "values")

    def __init__(self, values: list[Any], size: int) -> None:
        self.values = values
        self._size = size

    def __len__(self) -> int:
        return self._size


Decode = Callable[[memoryview], list[Any] | None]


def decoded(values: bytes, decode: Decode) -> bytes:
    """Decode the values of a report; return them as they are if that is left to the reader."""
    try:
        found = decode(memoryview(values))
    except Exception:  # A value does not fit: the reader finds it.
        return values
    # Whoever decodes expects it in the place of bytes.
    return values if found is None else cast("bytes", Decoded(found, len(values)))


class Batch(msgspec.Struct, frozen=True):
    """Outcomes of ``count`` consecutive items from ``start`` on.

    Attributes:
        values: One encoded array in the caller's format, null where the item failed. For a caller
            that decodes (``MapSpec.decode``), it may be ``Decoded`` instead.
        errors: A record for each failed item.
        tries: Calls of the function that each of these outcomes took.
    """

    start: int
    count: int
    values: bytes
    errors: list[ErrorRecord] = []
    tries: int = 1

    @property
    def size(self) -> int:
        """Bytes of memory, roughly, including the items that the reader joins with it."""
        size = len(self.values) + ITEM_BYTES * self.count + 200
        for error in self.errors:
            size += len(error.message) + len(error.traceback or "") + 200
        return size


class Reorder:
    """Hold back early batches.

    Attributes:
        size: Bytes of the batches held back.
    """

    def __init__(self) -> None:
        self._next = 0
        self._early: dict[int, Batch] = {}
        self.size = 0

    def add(self, batch: Batch) -> list[Batch]:
        """Add a batch; return the batches that are now in order."""
        self._early[batch.start] = batch
        self.size += batch.size
        ready = []
        while (following := self._early.pop(self._next, None)) is not None:
            self._next += following.count
            self.size -= following.size
            ready.append(following)
        return ready


class Outcome(Generic[X, Y]):
    """One item's value or error.

    Attributes:
        index: Position of the item in the input.
        item: The item itself.
        error: The item's error; None if it has a value.
        tries: Calls of the function for the item; the last one gave this outcome.
    """

    __slots__ = ("_value", "error", "index", "item", "tries")

    def __init__(
        self, index: int, item: X, value: Y | None, error: ItemError | None, tries: int = 1
    ) -> None:
        self.index = index
        self.item = item
        self.error = error
        self.tries = tries
        self._value: Any = value

    @property
    def ok(self) -> bool:
        return self.error is None

    @property
    def value(self) -> Y:
        """The item's value; raises ``error`` if there is one."""
        if self.error is not None:
            raise self.error
        value: Y = self._value
        return value

    def __repr__(self) -> str:
        what = f"value={self._value!r}" if self.ok else f"error={self.error!r}"
        return f"Outcome(index={self.index}, item={self.item!r}, {what})"


def item_error(record: ErrorRecord, *, trusted: bool = False) -> ItemError:
    """Make the exception for an error record that travelled.

    trusted: whether pickles in it may be loaded.
    """
    cls = ITEM_ERRORS.get(record.kind, ItemError)
    error = cls(record.index, record.type, record.message, record.traceback, record.detail)
    error.__cause__ = exception_of(record, trusted=trusted)
    return error
