"""Count opcodes, or write stamps, in each process that a benchmark starts with this on its path.

``bench.opcodes`` counts between SIGUSR1 and SIGUSR2; ``bench.hops`` and ``bench.cold`` read stamps.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import signal
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from time import monotonic_ns, process_time_ns
from types import CodeType, FrameType, ModuleType
from typing import Any


class Counter:
    """Opcodes and calls, by function."""

    def __init__(self, directory: str) -> None:
        self._path = Path(directory) / str(os.getpid())
        self._opcodes: dict[CodeType, int] = {}
        self._calls: dict[CodeType, int] = {}

    def begin(self, _: int, frame: FrameType | None) -> None:
        """Count from now on, also in what runs: the loop of a worker never returns."""
        self._opcodes.clear()
        self._calls.clear()
        sys.settrace(self._on_call)
        while frame is not None:
            frame.f_trace = self._on_call(frame, "call", None)
            frame = frame.f_back

    def end(self, *_: object) -> None:
        """Write the counts to a file that is named after the process."""
        sys.settrace(None)
        rows = [
            (f"{code.co_filename}:{code.co_qualname}", self._opcodes.get(code, 0), calls)
            for code, calls in self._calls.items()
        ]
        draft = self._path.with_suffix(".draft")
        draft.write_text(json.dumps(rows))
        draft.rename(self._path)

    def _on_call(self, frame: FrameType, event: str, arg: Any) -> Any:
        self._calls[frame.f_code] = self._calls.get(frame.f_code, 0) + 1
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._on_opcode

    def _on_opcode(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "opcode":
            self._opcodes[frame.f_code] = self._opcodes.get(frame.f_code, 0) + 1
        return self._on_opcode


if directory := os.environ.get("BENCH_OPCODES"):
    counter = Counter(directory)
    signal.signal(signal.SIGUSR1, counter.begin)
    signal.signal(signal.SIGUSR2, counter.end)


class Stamps:
    """Append a line to a file whenever a function is called or has returned.

    points: ``module:function`` or ``module:Class.method``, then ``<`` for its call or ``>`` for its
    return. A line has the time of the clock that all processes share, the processor time of the
    process, both in nanoseconds, its id, and the point.
    """

    def __init__(self, path: str, points: list[str]) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._points: dict[str, list[str]] = {}
        for point in points:
            self._points.setdefault(point.partition(":")[0], []).append(point)
        self.write("starts")
        self._load = SourceFileLoader.exec_module
        stamps = self

        def exec_module(loader: SourceFileLoader, module: ModuleType) -> None:
            stamps._load(loader, module)
            for point in stamps._points.pop(module.__name__, ()):
                stamps._wrap(module, point)

        SourceFileLoader.exec_module = exec_module  # type: ignore[method-assign]

    def write(self, point: str) -> None:
        """Append a line, in one call of the system, so that processes do not mix."""
        line = f"{monotonic_ns()} {process_time_ns()} {os.getpid()} {point}\n"
        os.write(self._file, line.encode())

    def _wrap(self, module: ModuleType, point: str) -> None:
        *owners, name = point[:-1].partition(":")[2].split(".")
        owner: Any = module
        for each in owners:
            owner = getattr(owner, each)
        wrapped = inspect.getattr_static(owner, name)
        is_class_method = isinstance(wrapped, classmethod)
        f = wrapped.__func__ if is_class_method else wrapped
        made = self._before(f, point) if point.endswith("<") else self._after(f, point)
        setattr(owner, name, classmethod(made) if is_class_method else made)

    def _before(self, f: Callable[..., Any], point: str) -> Callable[..., Any]:
        @functools.wraps(f)
        def call(*args: Any, **kwargs: Any) -> Any:
            self.write(point)
            return f(*args, **kwargs)

        return call

    def _after(self, f: Callable[..., Any], point: str) -> Callable[..., Any]:
        @functools.wraps(f)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            try:
                return await f(*args, **kwargs)
            finally:
                self.write(point)

        @functools.wraps(f)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return f(*args, **kwargs)
            finally:
                self.write(point)

        return awaited if inspect.iscoroutinefunction(inspect.unwrap(f)) else call


if path := os.environ.get("BENCH_STAMPS"):
    stamps = Stamps(path, os.environ["BENCH_POINTS"].split())
