"""Call the loaders of ``per_worker`` parameters, keep what they make, and tear it down at the end.

No process and no pipe: the worker process uses this, and so does ``Cluster(inline=True)``.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import FunctionType, GeneratorType
from typing import Any

from jetmap.functions.function import Function
from jetmap.functions.per_worker import PerWorker
from jetmap.machine import MAIN

TEXT_LIMIT = 4_096  # Characters of a traceback: each announcement of the agent holds it.
KEPT_OWNERS = 4  # Callers whose objects are kept, of those that sent loaders by value.

# Guards one call of a loader, made for the function named by the first argument.
LoadGuard = Callable[[str, PerWorker], AbstractContextManager[None]]


class LoadFailed(Exception):  # noqa: N818
    """A loader that raised. Users meet it as a WorkerStartFailed.

    Attributes:
        loader: Its name.
    """

    def __init__(self, loader: str, text: str) -> None:
        super().__init__(text)
        self.loader = loader


@dataclass
class _Held:
    """The object that a loader has made."""

    mark: PerWorker
    value: Any
    generator: Iterator[Any] | None


class WorkerState:
    """The objects that loaders have made in this process.

    Attributes:
        seconds: The loaders that were called, by name, and the seconds that each took.
        calls: Calls of loaders that made something.
        unloadable: Loaders that are not to be called, by name, and why.
    """

    def __init__(self, guard: LoadGuard = lambda home, mark: nullcontext()) -> None:
        self.seconds: dict[str, float] = {}
        self.calls = 0
        self.unloadable: dict[str, str] = {}
        self._guard = guard
        self._held: dict[Hashable, _Held] = {}  # In the order of loading.
        self._lock = threading.Lock()  # Inline maps run in threads.

    def values(self, function: Function, home: str = "") -> dict[str, Any]:
        """Return the parameters of a function that this process passes, loaded if need be.

        Raises LoadFailed if a loader does.
        """
        with self._lock:
            return {
                parameter: self._value(function, parameter, mark, home)
                for parameter, mark in function.per_worker.items()
            }

    def close(self) -> None:
        """Tear down what loaders have made, the last one first."""
        while self._held:
            _, held = self._held.popitem()
            _tear_down(held)

    def _value(self, function: Function, parameter: str, mark: PerWorker, home: str) -> Any:
        held = self._held.get(mark.key)
        if held is not None:
            return held.value
        subject = f"{mark.name}, which makes {parameter!r} of {function.name}(),"
        if (reason := self.unloadable.get(mark.name)) is not None:
            raise LoadFailed(mark.name, reason)
        self._make_room(mark)
        began = time.monotonic()
        try:
            with self._guard(home, mark):
                value, generator = _load(mark)
        except BaseException as error:
            raise LoadFailed(mark.name, f"{subject} raised:\n{_traceback(error)}") from error
        self.seconds[mark.name] = time.monotonic() - began
        self.calls += 1
        self._held[mark.key] = _Held(mark, value, generator)
        return value

    def _make_room(self, mark: PerWorker) -> None:
        """Tear down an object whose loader was redefined, and those of the oldest callers."""
        if type(mark.load) is FunctionType and _is_brought(mark) and "<" not in mark.name:
            for key, held in list(self._held.items()):
                if _is_successor(mark, held.mark):
                    _tear_down(self._held.pop(key))
        owners = dict.fromkeys(held.mark.owner for held in self._held.values() if held.mark.owner)
        if mark.owner and mark.owner not in owners and len(owners) >= KEPT_OWNERS:
            oldest = next(iter(owners))
            for key, held in reversed(list(self._held.items())):
                if held.mark.owner == oldest:
                    _tear_down(self._held.pop(key))


def _is_successor(new: PerWorker, old: PerWorker) -> bool:
    """Return whether a loader was defined in the place of another one."""
    if (new.owner, new.name) != (old.owner, old.name):
        return False
    # Scripts of one directory share workers. (Each cell of a notebook is a file of its own.)
    files = [getattr(mark.load, "__code__", None) for mark in (new, old)]
    paths = [code.co_filename if code is not None else "" for code in files]
    return bool(new.owner) or paths[0] == paths[1]


def _is_brought(mark: PerWorker) -> bool:
    """Return whether a loader can be defined again in this process."""
    return bool(mark.owner) or getattr(mark.load, "__module__", None) in MAIN


def _load(mark: PerWorker) -> tuple[Any, Iterator[Any] | None]:
    """Call a loader; return what it makes, and its generator if it has something to tear down."""
    made = mark.load()
    if isinstance(made, AbstractContextManager):
        inner = getattr(made, "gen", None)  # Of a generator under @contextmanager.
        made = inner if isinstance(inner, GeneratorType) else made
    if isinstance(made, GeneratorType):
        try:
            return next(made), made
        except StopIteration:
            raise TypeError(f"{mark.name} is a generator that yields nothing") from None
    if hasattr(made, "__await__"):
        raise TypeError(f"{mark.name} returns something to await; a loader is not async")
    return made, None


def _tear_down(held: _Held) -> None:
    """Run what follows a generator's ``yield``. An error is printed: the others go on."""
    if held.generator is None:
        return
    try:
        if next(held.generator, held) is not held:
            raise TypeError(f"{held.mark.name} is a generator that yields twice")
    except BaseException:
        sys.stderr.write(
            f"jetmap: what {held.mark.name} made cannot be torn down:\n{traceback.format_exc()}"
        )


def _traceback(error: BaseException) -> str:
    """Format an error from the loader's own frames on."""
    inner = error.__traceback__
    while inner is not None and inner.tb_frame.f_globals.get("__name__") == __name__:
        inner = inner.tb_next
    text = "".join(traceback.format_exception(type(error), error, inner)).rstrip()
    return text if len(text) <= TEXT_LIMIT else f"…{text[-TEXT_LIMIT:]}"
