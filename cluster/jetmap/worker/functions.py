"""Import the functions of a worker: those of its tasks, and those that chunks name or bring."""

from __future__ import annotations

import faulthandler
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import setitimer  # Before ``Dispositions`` watches it.
from typing import Any

from jetmap.codecs import types
from jetmap.functions.importing import broken_files, file_of, import_tasks, load
from jetmap.functions.locating import StaleFunction, check_pickles, resolve, resolved
from jetmap.functions.per_worker import PerWorker
from jetmap.functions.source_files import (
    changed_sources,
    file_digest,
    note_sources,
    source_digest,
    source_files,
)
from jetmap.functions.task import Function, guests, registered
from jetmap.wire import frames
from jetmap.wire.messages import Chunk, FunctionRef
from jetmap.wire.presence import loader_home
from jetmap.wire.seals import is_sealed
from jetmap.wire.worker_start import Broken, Brought, Importing, Loaded, Ready, Setup

from .state import LoadFailed, WorkerState

STACK_SECONDS = 0.2  # Seconds in which the stack of a loader that takes too long is printed.


class BrokenHome(Exception):  # noqa: N818
    """The module of a chunk's function cannot be imported here, or a loader of it fails."""


class WorkerFunctions:
    """Import functions, and report to the agent what was found and what is broken.

    Args:
        send: Sends a frame of this kind to the agent.
        end_if_forked: Ends a forked child in which an error has left the user's code.

    Attributes:
        by_name: The functions that this worker offers.
        trust: Whether chunks may name modules or carry pickles.
    """

    def __init__(
        self,
        send: Callable[[bytes, object], None],
        end_if_forked: Callable[[BaseException], None],
    ) -> None:
        self.by_name: dict[str, Function] = {}
        self.trust = False
        self._send = send
        self._end_if_forked = end_if_forked
        self._grows = False
        self._key = b""
        self._checked = ""  # The last map for which the sources were compared.
        self._state = WorkerState(self._guard)
        self._load_timeout = 0.0

    def load(self, setup: Setup) -> None:
        """Import the tasks, call their loaders, and announce the functions.

        Raises whatever keeps all of them from being called.
        """
        self.trust, self._grows, self._key = setup.trust, setup.grows, setup.key
        self._load_timeout = setup.load_timeout
        loaded = load(setup.tasks, main=setup.main, on_import=self._importing_task)
        self._importing_task("")
        self.by_name = {function.name: function for function in loaded}
        if loaded and all(function.announced().refusal for function in loaded):
            loaded[0].info()  # Raises TypeError: there is nothing to offer.
        if self._grows and (setup.modules or setup.brought or any(map(_marks, loaded))):
            self._announce(frames.EARLY)
        self._import_early(setup.modules)
        self._state.unloadable = setup.unloadable
        self._load_states(list(self.by_name.values()), setup)
        for brought in setup.brought:
            self._load_brought(brought)
        self._state.unloadable = {}  # A chunk's function is worth another try.
        self._announce(frames.READY)

    def _import_early(self, modules: list[str]) -> None:
        """Import the modules of the program that started the keeper.

        Another program may share the keeper, and must not suffer if they are broken.
        """
        if not modules:
            return
        for name in modules:
            self._importing(name)
            try:
                with guests():
                    import_tasks(name)
            except BaseException as error:
                self._end_if_forked(error)
                self._say_broken(name, error)
        self._importing("")
        self.by_name |= {function.name: function for function in registered()}

    def _load_states(self, functions: list[Function], setup: Setup) -> None:
        """Call the loaders of the functions that are offered; report each that fails."""
        failures: list[LoadFailed] = []
        for function in functions:
            home = loader_home(function.name, None, function.module)
            try:
                if _marks(function):
                    self._state.values(function, home)
            except LoadFailed as error:
                self._end_if_forked(error)
                if error.loader in setup.proven:
                    raise _start_failed(error) from error  # The next worker may have more luck.
                failures.append(error)
                self._say_unloadable(home, error)
        if failures and len(failures) == len(functions) and not self._grows:
            raise _start_failed(failures[0]) from failures[0]

    def _load_brought(self, brought: Brought) -> None:
        """Prepare for a function that an earlier worker was brought."""
        types.may_import_classes = True
        try:
            with guests():
                function = resolve(brought.ref)
            self._state.values(function, loader_home(brought.name, brought.ref))
        except BaseException as error:  # It is reported if a chunk still needs it.
            self._end_if_forked(error)
            return
        if self._grows:
            self.by_name[brought.name] = function

    def state_of(self, chunk: Chunk, function: Function) -> dict[str, Any]:
        """Return the parameters that this worker passes to a chunk's function.

        Raises BrokenHome if a loader fails.
        """
        before = self._state.calls
        home = loader_home(chunk.function, chunk.ref, function.module)
        try:
            values = self._state.values(function, home)
        except LoadFailed as error:
            self._end_if_forked(error)
            self._say_unloadable(home, error)
            raise BrokenHome from error
        if self._state.calls == before:
            return values
        names = [mark.name for mark in function.per_worker.values()]
        loads = {name: self._state.seconds[name] for name in names}
        brought = None if chunk.ref is None else Brought(chunk.function, chunk.ref)
        self._send(frames.LOADED, Loaded(loads, brought))
        return values

    def close(self) -> None:
        """Tear down what loaders have made."""
        self._state.close()

    def find(self, chunk: Chunk, ref: FunctionRef) -> Function:
        """Return the function that a chunk names or brings, imported if need be.

        Raises BrokenHome if its module is broken, StaleFunction if its source has changed.
        """
        if chunk.seal and self._key:
            return self._find_sealed(chunk, ref)
        function = self._imported(ref)
        # In a pool of many callers a name may be another's: each caller brings its own function.
        if self._grows and self.by_name.get(chunk.function) is not function:
            self.by_name[chunk.function] = function
            self._announce()
        return function

    def takes(self, chunk: Chunk) -> bool:
        """Return whether a chunk may name its function's module, or bring its function."""
        return self.trust or bool(chunk.seal and self._key)

    def pickling(self, chunk: Chunk, function: Function) -> Function:
        """Return a function that reads and writes pickles. Raises PermissionError without trust."""
        if not self.trust:
            raise PermissionError(
                f"the items for {chunk.function} are pickled, and this worker does not load "
                "pickles (--trust-pickle)"
            )
        check_pickles(chunk.ref, f"an item of {chunk.function}")
        if chunk.ref is not None and not chunk.ref.module:
            chunk.ref = None  # It said no more than that.
        return function.pickling()

    def _find_sealed(self, chunk: Chunk, ref: FunctionRef) -> Function:
        """Return a function of this user's, which no other user may call."""
        if not is_sealed(chunk, self._key):
            raise PermissionError(
                f"{chunk.function} was not sent by the user of this `jetmap up` on its machine: "
                "the seal does not fit"
            )
        if chunk.map != self._checked:
            # Modules that this process has imported meanwhile count too, such as a helper.
            if changed_sources():
                raise StaleFunction(f"sources changed since {ref.module} was imported")
            self._checked = chunk.map
        types.may_import_classes = True
        function = self._imported(ref)
        note_sources()
        return function

    def _imported(self, ref: FunctionRef) -> Function:
        if (function := resolved(ref)) is not None:
            return function
        if ref.value is not None:  # There is nothing to import.
            return resolve(ref)
        from jetmap.errors import NotImportable

        home = ref.path or ref.module
        self._importing(home, ref.path or ref.file)
        try:
            return resolve(ref)
        except (StaleFunction, NotImportable):
            raise
        except BaseException as error:
            self._end_if_forked(error)
            self._say_broken(home, error)
            raise BrokenHome from error
        finally:
            self._importing("")

    def _importing_task(self, argument: str) -> None:
        """Report that the import of a ``TASKS`` argument begins, in case it ends this process."""
        file = str(Path(argument).absolute()) if argument.endswith(".py") else ""
        self._send(frames.TASK, Importing(argument, file))

    def _importing(self, home: str, file: str | None = None) -> None:
        """Report the import that begins, in case it never ends, or ends this process."""
        file = (file_of(home) if file is None else file) if home else ""
        self._send(frames.IMPORTING, Importing(home, file))

    @contextmanager
    def _guard(self, home: str, mark: PerWorker) -> Iterator[None]:
        """Report that a loader begins; have the kernel end this process if it takes too long.

        That also ends one that keeps the interpreter to itself. Its stack is printed before.
        """
        seconds = mark.timeout or self._load_timeout
        self._send(frames.IMPORTING, Importing(home, "", mark.name, seconds))
        handler = signal.signal(signal.SIGALRM, signal.SIG_DFL)
        faulthandler.dump_traceback_later(seconds, file=2)
        setitimer(signal.ITIMER_REAL, seconds + STACK_SECONDS)
        try:
            yield
        finally:
            setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()
            signal.signal(signal.SIGALRM, signal.SIG_DFL if handler is None else handler)
            self._send(frames.IMPORTING, Importing())

    def _say_unloadable(self, home: str, error: LoadFailed) -> None:
        files = broken_files(error, home.partition(":")[0])
        self._send(frames.BROKEN, Broken(home, str(error), files, error.loader))

    def _say_broken(self, home: str, error: BaseException) -> None:
        from jetmap.functions.import_errors import format_import_error

        broken = Broken(home, format_import_error(error), broken_files(error, home))
        self._send(frames.BROKEN, broken)

    def _announce(self, kind: bytes = frames.READY) -> None:
        functions, files = list(self.by_name.values()), source_files()
        ready = Ready(
            [function.announced() for function in functions],
            source_digest(functions),
            files,
            [file_digest(file) for file in files],
            self._state.seconds,
        )
        if self._key:
            note_sources()
        self._send(kind, ready)


def _start_failed(error: LoadFailed) -> Exception:
    from jetmap.errors import WorkerStartFailed

    return WorkerStartFailed(str(error))


def _marks(function: Function) -> list[PerWorker]:
    """Return the marks of a function; none if it cannot be called, which is announced."""
    try:
        return list(function.per_worker.values())
    except TypeError:
        return []
