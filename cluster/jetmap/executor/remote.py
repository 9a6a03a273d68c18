"""The worker's side of an executor: the functions that run its calls.

They are ordinary functions of a map. Items are packed calls or, in ``Executor.map``, packed
arguments; values are packed results. Plain numbers and None travel as they are.
"""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, ModuleType
from typing import Any

import msgspec

from . import nested_pools
from .link import WorkerLink
from .packing import pack, unpack
from .shared_tracker import use_tracker_of
from .shortcut import ReportSender
from .worker_globals import initializing

Plain = bool | int | float | bytes | None

# The first byte of a packed result: a value; an exception of the call, or in pickling its value;
# an exception in unpickling the call; an exception of the initializer.
VALUE, RAISED, LOST, BROKEN = b"v", b"e", b"u", b"i"
_KEPT = 64  # Functions and contexts to keep.
# Types whose values no call can change.
_UNCHANGING = frozenset((bool, bytes, complex, float, int, str, type(None)))
LEAST_INT, MOST_INT = -(1 << 63), (1 << 64) - 1  # Integers that MessagePack can carry.


class Shared(msgspec.Struct, array_like=True):
    """The part of a call that all calls of its executor share.

    Attributes:
        executor: Identifies the executor.
        link: Address of its end of the link.
        authkey: The caller's, with which its Managers' proxies connect.
        initializer: The packed initializer and its arguments; empty if there is none.
        calls: Number of calls after which a worker is replaced; 0: never.
        variables: Environment of the workers: how many threads numeric libraries may use.
        log_level: Level from which on logs of calls appear; empty: that of the settings.
    """

    executor: str
    link: str
    authkey: bytes
    initializer: bytes
    calls: int
    variables: dict[str, str] = {}
    log_level: str = ""


class Context(msgspec.Struct, array_like=True):
    """The part of a call that all calls of its map share.

    Attributes:
        function: The packed function of ``Executor.map``; empty for ``submit``.
    """

    shared: Shared
    function: bytes = b""


class RemoteCall(msgspec.Struct, array_like=True):
    """A packed call of ``Executor.submit``."""

    function: bytes
    arguments: bytes


_context = msgspec.msgpack.Decoder(Context).decode
_call = msgspec.msgpack.Decoder(RemoteCall).decode
_encode = msgspec.msgpack.Encoder().encode
# Whether a call is being unpickled, which may import modules.
is_loading = False
# This worker's stdout and stderr, and whether something was written to them since ``_flush``.
_streams: tuple[io.TextIOWrapper | None, io.TextIOWrapper | None] = None, None
_has_printed = False
_runs: dict[bytes, _Run] = {}
_executors: dict[str, _Executor] = {}


def call(item: Plain, *, context: bytes) -> Plain:
    """Run a call of ``Executor.submit``, whose result leaves the worker at once."""
    return call_of_map(item, context=context)


call.reports_each = True  # type: ignore[attr-defined]


def call_of_map(item: Plain, *, context: bytes) -> Plain:
    """Run a call of ``Executor.map``, whose results leave the worker together."""
    run = _runs.get(context)
    if run is None:
        if len(_runs) >= _KEPT:
            del _runs[next(iter(_runs))]
        run = _runs[context] = _Run(_context(context))
    return run.call(item)


def _bound(*, context: bytes) -> Callable[[Plain], Plain] | None:
    """Return ``call_of_map`` for the calls of a map that has begun here, without looking it up."""
    run = _runs.get(context)
    return None if run is None else run.call


call_of_map.jetmap_bound = call.jetmap_bound = _bound  # type: ignore[attr-defined]


def start_in(environment: dict[str, str], packed: bytes) -> None:
    """Initialize a worker: set variables, then call the pickled initializer, if there is one."""
    os.environ.update(environment)
    if packed:
        initializer, arguments = pickle.loads(packed)
        initializer(*arguments)


class _Executor:
    """This worker's share in an executor."""

    def __init__(self, shared: Shared) -> None:
        self.link = WorkerLink(shared.link)
        self.pid = os.getpid()
        self.left = shared.calls
        self._functions: dict[bytes, Callable[..., Any]] = {}
        _print_to(*self.link.streams())
        os.environ.update(shared.variables)
        if shared.log_level:
            logging.getLogger().setLevel(shared.log_level.upper())
        use_tracker_of(shared.link)
        if (reports := self.link.reports()) is not None:
            from jetmap.worker import reporter

            reporter.shortcut = ReportSender(reports).send
        process = multiprocessing.current_process()
        process.authkey = shared.authkey
        process.name = f"ExecutorProcess-{self.pid}"  # "MainProcess" is the caller.
        nested_pools.prepare()
        self.failure: bytes | None = None
        if shared.initializer:
            try:
                with initializing():
                    initializer, arguments = unpack(shared.initializer, self.link.get)
                    initializer(*arguments)
            except BaseException as error:
                self.failure = BROKEN + _encode(_described(error))

    def function(self, packed: bytes) -> Callable[..., Any]:
        found = self._functions.get(packed)
        if found is None:
            found = unpack(packed, self.link.get)
            # Others, such as an object with a method, may change in a call: each gets its own.
            if _is_unchanging(found):
                if len(self._functions) >= _KEPT:
                    del self._functions[next(iter(self._functions))]
                self._functions[packed] = found
        return found

    def on_call(self) -> None:
        """Count one of the calls that are ``left``, after which the worker has to go."""
        self.left -= 1
        if not self.left:
            from jetmap.worker import main

            main.is_spent = True


def _is_unchanging(f: Any) -> bool:
    """Return whether a call cannot change a callable, so that all calls may share it."""
    if type(f) is FunctionType:
        return f.__closure__ is None
    if type(f) is BuiltinFunctionType:
        return f.__self__ is None or isinstance(f.__self__, ModuleType)
    if type(f) is partial:
        bound = (*f.args, *f.keywords.values())
        return _is_unchanging(f.func) and _UNCHANGING.issuperset(map(type, bound))
    return isinstance(f, (type, MethodDescriptorType))


class _Run:
    """The calls of one map."""

    def __init__(self, context: Context) -> None:
        shared = context.shared
        executor = _executors.get(shared.executor)
        if executor is None:
            executor = _executors[shared.executor] = _Executor(shared)
        self._executor = executor
        self._function = context.function
        self._map: Callable[..., Any] | None = None

    def call(self, item: Plain) -> Plain:
        executor = self._executor
        if executor.failure is not None:
            return executor.failure
        if executor.left:
            executor.on_call()
        try:
            function = self._map
            if function is not None and type(item) is not bytes:
                value = function(item)  # Nothing is to be loaded.
            else:
                value = self._call(item)
            kind = type(value)
            if kind is int:
                if LEAST_INT <= value <= MOST_INT:
                    return value  # type: ignore[no-any-return]
            elif kind is float or kind is bool or value is None:
                return value  # type: ignore[no-any-return]
            return VALUE + pack(value, executor.link.put, home=True)
        except _LostError as lost:
            assert lost.__cause__ is not None
            return LOST + _encode(_described(lost.__cause__))
        except BaseException as error:
            if os.getpid() != executor.pid:
                raise  # A child that the call forked ends as it would without jetmap.
            return RAISED + _packed_error(error, executor.link)
        finally:
            # Two calls of ``flush`` would cost half as much as all of this.
            if _has_printed or sys.stdout is not _streams[0] or sys.stderr is not _streams[1]:
                _flush()

    def _call(self, item: Plain) -> Any:
        global is_loading
        is_loading = True
        try:
            function, args, kwargs = self._load(item)
        except BaseException as error:
            raise _LostError from error
        finally:
            is_loading = False
        return function(*args, **kwargs)

    def _load(self, item: Plain) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        executor = self._executor
        if not self._function:
            assert isinstance(item, bytes)
            packed = _call(item)
            function = executor.function(packed.function)
            return function, *unpack(packed.arguments, executor.link.get)
        if self._map is not None:
            function = self._map
        else:
            function = executor.function(self._function)
            if _is_unchanging(function):
                self._map = function
        if type(item) is not bytes:
            return function, (item,), {}
        return function, *unpack(item, executor.link.get)


class _LostError(Exception):
    """Carries the exception that unpickling a call raised."""


def _packed_error(error: BaseException, link: WorkerLink) -> bytes:
    """Pack an exception and its traceback; if it cannot be pickled, the one that says why."""
    text = _traceback(error)
    try:
        return _encode((pack(error, link.put), text))
    except BaseException as failure:  # Its own code runs while it is packed.
        failure.add_note(f"It was to carry this exception:\n{text}")
        return _encode((pack(_plain(failure), link.put), _traceback(failure)))


def _plain(error: BaseException) -> Exception:
    """Return an exception that can be pickled: this one, or one with its text."""
    with contextlib.suppress(Exception):
        pack(error, lambda buffer: 0)
        if isinstance(error, Exception):
            return error
    return TypeError(_encodable(f"{type(error).__name__}: {error}"))


def _described(error: BaseException) -> tuple[str, str]:
    return _encodable(f"{type(error).__name__}: {error}"), _traceback(error)


def _encodable(text: str) -> str:
    """Escape what UTF-8 cannot hold, such as the odd bytes of a file's name."""
    return text.encode("utf-8", "backslashreplace").decode()


def _traceback(error: BaseException) -> str:
    """Format a traceback from the user's own frame on."""
    inner = error.__traceback__
    while inner is not None and inner.tb_frame.f_globals.get("__name__") == __name__:
        inner = inner.tb_next
    try:
        return _encodable("".join(traceback.format_exception(type(error), error, inner)))
    except Exception:  # Its own str() may raise.
        return f"{type(error).__name__}\n"


def _print_to(stdout: int, stderr: int) -> None:
    """Print to these descriptors from now on; they are closed here."""
    from jetmap.worker import output

    global _streams
    for fd, stream in ((1, stdout), (2, stderr)):
        os.dup2(stream, fd)
        os.close(stream)
    _streams = output.flushed_elsewhere = _text(1), _text(2)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__ = _streams  # type: ignore[misc]


class _Writer(io.BufferedWriter):
    """Note what is written, so that it is flushed at the end of the call."""

    def write(self, data: Any, /) -> int:
        global _has_printed
        _has_printed = True
        return super().write(data)


def _text(fd: int) -> io.TextIOWrapper:
    raw = open(fd, "wb", buffering=0, closefd=False)  # noqa: SIM115
    return io.TextIOWrapper(
        _Writer(raw),
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=True,
        write_through=True,  # To the writer.
    )


def _flush() -> None:
    """Let what a call has printed appear."""
    global _has_printed
    _has_printed = False
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # The call has replaced or closed it, or nobody reads it.
            continue
