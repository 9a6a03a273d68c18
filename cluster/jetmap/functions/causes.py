"""Carry the exception of a function to its caller.

Where the caller unpickles, it gets the exception itself. Where the caller does not, or where that
fails, an instance of its nearest base class that can be had stands for it, made without
``__init__``: so ``except ValueError`` holds for each subclass of it.
"""

from __future__ import annotations

import builtins
from typing import Any

from jetmap.wire.messages import Cause, ErrorRecord

from .pickles import dumps, find_class, loads

PICKLE_BYTES = 65_536  # Bytes of a pickled exception, at most.
_CLASSES = 16  # Classes named, at most.
_HEAP = 1 << 9  # The bit in a class's __flags__ of those defined in Python.


class HeldCause(Cause):
    """The exception of a function that ran in this process."""

    error: Any = None


def cause_of(error: BaseException, *, pickled: bool) -> Cause:
    """Describe an exception. pickled: with the exception itself, if it can be pickled."""
    classes = []
    for cls in type(error).__mro__[:_CLASSES]:
        if cls in (BaseException, object):
            break
        classes.append(f"{cls.__module__}:{cls.__qualname__}")
    data = b""
    if pickled:
        try:
            data = dumps(error, _reduce, PICKLE_BYTES)
        except BaseException:  # Its own ``__reduce__`` may raise anything.
            data = b""  # It is too large, or holds a lock or the like: its base stands for it.
    return Cause(classes, data)


def exception_of(record: ErrorRecord, *, trusted: bool) -> BaseException | None:
    """Return the exception of a record, with the worker's traceback as a note.

    Args:
        trusted: Whether pickles may be loaded, and modules imported, because of it.

    Returns None for a record that an older worker made.
    """
    cause = record.cause
    if cause is None:
        return None
    if isinstance(cause, HeldCause):
        found: BaseException = cause.error
        return found
    error = _loaded(cause.pickled) if trusted and cause.pickled else None
    if error is None:
        error = _stand_in(cause.classes, record, trusted)
    if record.traceback:
        try:
            error.add_note(record.traceback.rstrip())
        except Exception:
            return error  # A frozen one takes no note; ``ItemRaised.traceback`` has it.
    return error


def make(cls: Any, args: tuple[Any, ...]) -> Any:
    """Make an exception of its class and ``args``, without ``__init__`` if that takes others."""
    try:
        return cls(*args)
    except Exception:
        return _bare(cls, args)


def _reduce(obj: Any) -> Any:
    """Pickle an exception so that ``make`` makes it again, unless it has a way of its own."""
    if not isinstance(obj, BaseException):
        return NotImplemented
    reduced = obj.__reduce_ex__(5)
    if not isinstance(reduced, tuple) or reduced[0] is not type(obj):
        return NotImplemented
    return make, reduced[:2], *reduced[2:]


def _bare(cls: Any, args: tuple[Any, ...]) -> BaseException:
    """Make an exception by the constructor of its nearest class in C, not by its own."""
    native = cls
    while native.__flags__ & _HEAP:
        native = native.__base__
    made: BaseException = native.__new__(cls, *args)
    native.__init__(made, *args)
    made.args = args
    return made


def _loaded(data: bytes) -> BaseException | None:
    try:
        error = loads(data)
    except (Exception, SystemExit):
        return None  # Its module is not here, or its own way to be made again fails.
    return error if isinstance(error, BaseException) else None


def _stand_in(classes: list[str], record: ErrorRecord, trusted: bool) -> BaseException:
    """Make an instance of the nearest class that can be had, with the exception's message."""
    for name in classes:
        module, _, qualname = name.partition(":")
        cls = vars(builtins).get(qualname) if module == "builtins" else None
        if module != "builtins" and trusted:
            try:
                cls = find_class(module, qualname)
            except (Exception, SystemExit):
                continue
        if not isinstance(cls, type) or not issubclass(cls, BaseException):
            continue
        message = record.message
        if cls.__name__ != record.type:
            message = f"{record.type}: {message}" if message else record.type
        try:
            return _bare(cls, (message,))
        except Exception:
            continue  # A UnicodeDecodeError, for example, is not made of a message.
    return Exception(f"{record.type}: {record.message}")
