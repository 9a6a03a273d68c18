"""Import the functions of a worker: those of its tasks, and those that chunks name or bring."""

from __future__ import annotations

from collections.abc import Callable

from jetmap.codecs import types
from jetmap.functions.locating import (
    StaleFunction,
    broken_files,
    file_of,
    import_tasks,
    is_resolved,
    load,
    resolve,
    source_digest,
    source_files,
)
from jetmap.functions.source_files import changed_sources, file_digest, note_sources
from jetmap.functions.task import Function, guests, registered
from jetmap.wire import frames
from jetmap.wire.messages import Chunk, FunctionRef
from jetmap.wire.seals import is_sealed
from jetmap.wire.worker_start import Broken, Importing, Ready, Setup


class BrokenHome(Exception):  # noqa: N818
    """The module of a chunk's function cannot be imported here."""


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

    def load(self, setup: Setup) -> None:
        """Import the tasks, and announce their functions."""
        self.trust, self._grows, self._key = setup.trust, setup.grows, setup.key
        loaded = load(setup.tasks, main=setup.main)
        self.by_name = {function.name: function for function in loaded}
        if loaded and all(function.announced().refusal for function in loaded):
            loaded[0].info()  # Raises TypeError: there is nothing to offer.
        self._announce(more=bool(setup.modules))

    def load_early(self, modules: list[str]) -> None:
        """Import the modules of the program that started the keeper.

        Another program may share the keeper, and must not suffer if they are broken.
        """
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
        self._announce()

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
        from jetmap.errors import NotImportable

        if is_resolved(ref):
            return resolve(ref)
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

    def _importing(self, home: str, file: str | None = None) -> None:
        """Report the import that begins, in case it never ends, or ends this process."""
        file = (file_of(home) if file is None else file) if home else ""
        self._send(frames.IMPORTING, Importing(home, file))

    def _say_broken(self, home: str, error: BaseException) -> None:
        from jetmap.functions.import_errors import format_import_error

        broken = Broken(home, format_import_error(error), broken_files(error, home))
        self._send(frames.BROKEN, broken)

    def _announce(self, *, more: bool = False) -> None:
        functions, files = list(self.by_name.values()), source_files()
        ready = Ready(
            [function.announced() for function in functions],
            source_digest(functions),
            files,
            [file_digest(file) for file in files],
            more,
        )
        if self._key:
            note_sources()
        self._send(frames.READY, ready)
