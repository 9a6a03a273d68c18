"""Pickle functions that were defined without a file (REPL, notebook).

cloudpickle includes what a function uses, such as the classes of its session. Five details are
handled here: msgspec's cache on a class is left out; the markers of dataclasses, which are compared
by identity, are sent by name; annotations that are text are replaced by their types, because a
worker has no session in which to look their names up; loaders are pickled apart; and open files
are refused.
"""

from __future__ import annotations

import dataclasses
import io
import pickle
import secrets
import sys
from collections.abc import Iterator
from types import CodeType, CoroutineType
from typing import Any, ForwardRef

import cloudpickle
import msgspec

from jetmap.codecs.untyped import travel_hint
from jetmap.errors import NotImportable

from .function import Function
from .per_worker import PerWorker
from .pickles import refuse_connection
from .signatures import evaluate, innermost

_CACHE = "__msgspec_cache__"
_ANNOTATIONS = "__annotations__"
_OWNER = secrets.token_hex(8)  # Names this process to the workers that get its loaders.
_KEPT_LOADERS = 64
_MARKS = {
    id(value): name
    for name, value in vars(dataclasses).items()
    if type(value).__module__ == "dataclasses"
}


def pickled(function: Function, limit: int | None = None) -> bytes:
    """Pickle the function as it is now, with the globals it uses.

    Args:
        limit: Most bytes of the pickle.

    Raises:
        NotImportable: A global cannot travel, such as an open file, a lock or a msgspec struct; it
            is named.
    """
    about: tuple[Any, ...]
    about = (function.name, function.timeout, function.attempts, function.known_hints())
    if function.retry is not None or function.batching is not None:
        about = (*about, function.retry)
    if function.batching is not None:
        about = (*about, function.batching)
    file = _Bounded(limit)
    try:
        Pickler(file).dump((function.callable, *about))
    except _TooLarge:
        raise NotImportable(_too_large(function, limit or 0)) from None
    except Exception as exc:
        where = "without a file" if function.by_value else "in a script"
        raise NotImportable(
            f"{function.qualname} was defined {where}, and cannot be sent by value: "
            f"{_culprit(function)}{exc}; move it to a module"
        ) from exc
    return file.getvalue()


def unpickled(value: bytes, qualname: str) -> Function:
    """Load a pickled function. Raises NotImportable."""
    try:
        f, name, timeout, attempts, hints, *more = pickle.loads(value)
        retry, batching = (*more, None, None)[:2]
    except Exception as exc:
        raise NotImportable(
            f"a worker cannot load {qualname}, which was sent by value: {type(exc).__name__}: {exc}"
        ) from exc
    return Function(
        f,
        name=name,
        timeout=timeout,
        attempts=attempts,
        retry=retry,
        batching=batching,
        hints=hints,
    )


class _TooLarge(Exception):  # noqa: N818
    """The pickle exceeds its limit."""


class _Bounded(io.BytesIO):
    """A buffer that stops a pickle at its limit, so that a huge global costs no more than that."""

    def __init__(self, limit: int | None) -> None:
        super().__init__()
        self._limit = limit

    def write(self, data: Any) -> int:
        if self._limit is not None and self.tell() + len(memoryview(data)) > self._limit:
            raise _TooLarge
        return super().write(data)


def _culprit(function: Function) -> str:
    """Name the global that cannot be pickled, as the beginning of a message.

    Empty if something else that the function holds cannot be.
    """
    for name, value in _globals_used(function):
        try:
            Pickler(io.BytesIO()).dump(value)
        except Exception:
            return f"its global {name!r}: "
    return ""


def _too_large(function: Function, limit: int) -> str:
    """Explain which globals exceed the limit together with the function."""
    large = []
    for name, value in _globals_used(function):
        try:
            Pickler(_Bounded(limit // 4)).dump(value)
        except _TooLarge:
            large.append(repr(name))
        except Exception:  # Not reached: all of it was pickled up to the limit.
            continue
    with_what = f" with its global {' and '.join(large)}" if large else " with what it uses"
    return (
        f"{function.qualname} is sent by value, and{with_what} it takes more than the limit of "
        f"{limit:,} bytes (the broker's max_payload); load large data inside the function, or "
        "move function and data to a module, which workers import"
    )


def _globals_used(function: Function) -> Iterator[tuple[str, Any]]:
    """Yield the globals that the function's own code names."""
    code = getattr(innermost(function.callable), "__code__", None)
    scope = function.scope
    for name in sorted(_names(code)) if code is not None else ():
        if name in scope:
            yield name, scope[name]


def _names(code: CodeType) -> set[str]:
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _file(file: io.TextIOWrapper) -> Any:
    """Refuse an open file, whose content cloudpickle would send as a StringIO."""
    if file is sys.stdout or file is sys.stderr:  # By name.
        return cloudpickle.Pickler.dispatch_table[io.TextIOWrapper](file)
    raise TypeError(
        "cannot pickle '_io.TextIOWrapper' object, an open file; send its path or its content"
    )


def _coroutine(coroutine: CoroutineType[Any, Any, Any]) -> Any:
    raise TypeError(f"cannot pickle 'coroutine' object; {travel_hint(coroutine)}")


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    dispatch_table = cloudpickle.Pickler.dispatch_table.new_child(
        {io.TextIOWrapper: _file, CoroutineType: _coroutine}
    )

    def reducer_override(self, obj: Any) -> Any:
        mark = _MARKS.get(id(obj))
        if mark is not None:
            return mark
        if isinstance(obj, PerWorker):
            return _restored_mark, (_loader_pickled(obj), obj.timeout, obj.owner or _OWNER)
        refuse_connection(obj)
        reduced = super().reducer_override(obj)
        # A class that travels by value: how it is made, then its dict and its slots.
        if isinstance(obj, type) and isinstance(reduced, tuple) and len(reduced) > 2:
            if isinstance(obj, type(msgspec.Struct)):
                raise TypeError(
                    f"{obj.__qualname__} is a msgspec.Struct, which can only be imported: define "
                    "it in a module, or make it a dataclass"
                )
            make, arguments, (members, slots), *rest = reduced
            return make, arguments, (_portable(obj, members), slots), *rest
        return reduced


def _loader_pickled(mark: PerWorker) -> bytes:
    """Pickle a loader apart from the functions that name it, which share what it loads."""
    file = io.BytesIO()
    Pickler(file).dump(mark.load)
    return file.getvalue()


# The loaders that came by value, and their pickles.
_loaders: dict[bytes, Any] = {}


def _restored_mark(data: bytes, timeout: float | None, owner: str) -> PerWorker:
    """Load a mark; equal pickles are one loader."""
    if data not in _loaders:
        if len(_loaders) >= _KEPT_LOADERS:
            del _loaders[next(iter(_loaders))]
        _loaders[data] = pickle.loads(data)
    return PerWorker(_loaders[data], timeout, owner)


def _portable(cls: type, members: dict[str, Any]) -> dict[str, Any]:
    kept = {name: member for name, member in members.items() if name != _CACHE}
    annotations = kept.get(_ANNOTATIONS)
    if isinstance(annotations, dict):
        scope = getattr(sys.modules.get(cls.__module__), "__dict__", {})
        kept[_ANNOTATIONS] = {name: _meant(hint, scope) for name, hint in annotations.items()}
    return kept


def _meant(hint: Any, scope: dict[str, Any]) -> Any:
    if not isinstance(hint, (str, ForwardRef)):
        return hint
    try:
        return evaluate(hint, scope, {})
    except Exception:  # An unknown name is refused if the type is ever used.
        return hint
