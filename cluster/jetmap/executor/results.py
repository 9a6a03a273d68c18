"""Results of calls: loaded from what a worker packed, or an error that says why they cannot be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures.process import _RemoteTraceback
from threading import current_thread, main_thread
from typing import Any

import msgspec

from jetmap import bounds
from jetmap.errors import ExecutorBroken, Unpicklable

from .blobs import Blobs
from .packing import blobs_of, unpack
from .remote import BROKEN, LOST, RAISED, VALUE, Plain

_raised = msgspec.msgpack.Decoder(tuple[bytes, str]).decode
_described = msgspec.msgpack.Decoder(tuple[str, str]).decode

Break = Callable[[ExecutorBroken], None]


class ResultLoader:
    """Load the packed results of calls.

    Args:
        on_broken: Called when an initializer has failed.
    """

    def __init__(self, blobs: Blobs, on_broken: Break) -> None:
        self._blobs = blobs
        self._on_broken = on_broken

    def load(self, value: Plain) -> Any:
        """Return the value of a call, or raise its exception."""
        if not isinstance(value, bytes):
            return value
        kind, data = value[:1], value[1:]
        if kind == VALUE:
            return self._unpacked(data, "result")
        if kind == RAISED:
            packed, text = _raised(data)
            error = self._unpacked(packed, "exception", text)
            if not isinstance(error, BaseException):
                raise Unpicklable(
                    "the exception of the call could not be unpickled here, it became "
                    f"{bounds.shown(error)}:\n{text}"
                )
            error.__cause__ = _as_cause(text)
            raise error
        what, text = _described(data)
        if kind == LOST:
            raise Unpicklable(
                f"the call could not be unpickled in a worker: {what}"
            ) from _as_cause(text)
        raise self._broken(what, text)

    def drop(self, values: Sequence[Plain]) -> None:
        """Forget the large parts of results that nobody will load."""
        for value in values:
            if isinstance(value, bytes) and value[:1] in (VALUE, RAISED):
                is_value = value[:1] == VALUE
                self._blobs.drop(blobs_of(value[1:] if is_value else _raised(value[1:])[0]))

    def check(self, values: Sequence[Plain]) -> None:
        """Break the executor if its initializer has failed."""
        for value in values:
            if isinstance(value, bytes) and value[:1] == BROKEN:
                self._on_broken(self._broken(*_described(value[1:])))
                return

    def _unpacked(self, data: bytes, what: str, text: str = "") -> Any:
        try:
            return unpack(data, self._blobs.take)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and current_thread() is main_thread():
                raise  # Somebody has pressed Ctrl-C.
            about = f":\n{text}" if text else ""
            raise Unpicklable(
                f"the {what} of the call could not be unpickled here: "
                f"{type(error).__name__}: {error}{about}"
            ) from error

    def _broken(self, what: str, text: str) -> ExecutorBroken:
        broken = ExecutorBroken(f"the initializer raised in a worker: {what}")
        broken.__cause__ = _as_cause(text)
        return broken


def broken_by(error: BaseException) -> BaseException:
    """Return the failure of calls that a map's end leaves without an outcome."""
    if isinstance(error, ExecutorBroken):
        return error
    broken = ExecutorBroken(f"the executor's map ended: {error}")
    broken.__cause__ = error
    return broken


def _as_cause(text: str) -> _RemoteTraceback:
    """Make the cause of an exception: its traceback in the worker."""
    formatted: Any = f'\n"""\n{text}"""'
    return _RemoteTraceback(formatted)
