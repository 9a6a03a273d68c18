"""The `jetmap up` of this directory, joined by a ``Cluster()`` without an address.

A function that it offers from the same file is called by name, on every host of its pool. Any
other function goes to the agent of the `up` alone, sealed (see ``wire.seals``), as it would go to
an embedded cluster. Workers that have loaded older code than the files hold are never used; the
call raises.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from jetmap.agent.code import Code, read_code
from jetmap.background import Background
from jetmap.embedded.running import Running, find_running
from jetmap.errors import BrokerUnreachable, ConfigurationError, NotImportable
from jetmap.functions.locating import reference
from jetmap.functions.source_files import file_digest
from jetmap.machine import working_directory
from jetmap.wire.seals import Sealer

if TYPE_CHECKING:
    from jetmap.functions.function import Function
    from jetmap.nats.connection import Connection
    from jetmap.settings import Settings
    from jetmap.wire.messages import FunctionRef

    from .session import Session

logger = logging.getLogger("jetmap")

LOOK_SECONDS = 0.5  # Seconds between two looks for a new `up`, once one has ended.
GONE_SECONDS = 60.0  # Seconds after which the open maps of an ended `up` fail.
RELOAD_SECONDS = 0.1  # Seconds between two looks whether workers have loaded the current code.


def this_python() -> str:
    """Describe this process's interpreter by what matters to imported code."""
    return f"Python {platform.python_version()} in {sys.prefix}"


def up_to_join(settings: Settings, *, cores: int | str | None = None) -> Running | None:
    """Find the running `up` of this directory that a cluster of these settings can join.

    Args:
        cores: Cores that the cluster asks for; None: any.

    Raises:
        ConfigurationError: The `up` is another version of jetmap.
    """
    if not settings.broker.join_up:
        return None
    pool = settings.broker.pool if settings.was_given("pool") else None
    running = find_running(working_directory(), pool)
    if running is None:
        return None
    if (why := _difference(running, settings.workers.tasks, cores)) is not None:
        logger.warning(
            "`jetmap up` (pid %d) runs in this directory %s: starting workers beside it",
            *(running.pid, why),
        )
        return None
    from jetmap.version import __version__

    if running.version != __version__ or not running.key:
        raise ConfigurationError(
            [
                f"`jetmap up` (pid {running.pid}) in this directory is jetmap "
                f"{running.version or 'of an older version'}, and this is {__version__}: restart "
                "it, or use Cluster(share=False)"
            ]
        )
    return running


def _difference(running: Running, tasks: Sequence[str], cores: int | str | None) -> str | None:
    """Say how this `up` differs from what the cluster asks for; None if it does not."""
    missing = [task for task in tasks if _place(task) not in map(_place, running.tasks)]
    if missing:
        return f"without {', '.join(missing)}"
    if cores is not None and str(cores) != str(running.cores):
        return f"with other cores ({running.cores or 'all'}, not {cores})"
    return None


def _place(task: str) -> str:
    """Return the file of a ``TASKS`` argument; a module's name if it is not in this directory."""
    if task.endswith(".py") or "/" in task:
        return str(Path(task).resolve())
    file = Path(*task.split(".")).with_suffix(".py")
    return str(file.resolve()) if file.is_file() else task


def is_offered(function: Function, code: Code | None) -> bool:
    """Return True if the workers offer this function from the same file."""
    if code is None or function.file is None or function.by_value:
        return False
    file = os.path.realpath(function.file)
    return code.functions.get(function.name) == function.module and any(
        os.path.realpath(loaded) == file for loaded in code.files
    )


def changed_files(code: Code | None) -> list[str]:
    """Return the files that have changed since the workers loaded them."""
    if code is None:
        return []
    return [file for file, digest in code.files.items() if file_digest(file) != digest]


class LocalUp:
    """The `up` that a cluster has joined. It may end, and another one may follow."""

    def __init__(self, running: Running, timeout: float) -> None:
        self.running = running
        self.sealer = Sealer(bytes.fromhex(running.key))
        self._timeout = timeout
        self._cwd = working_directory()
        self._background = Background("the joined `jetmap up`")
        self._code: tuple[int, Code | None] = (0, None)

    async def reference(self, function: Function, session: Session) -> FunctionRef | None:
        """Return where the agent finds the function; None if its name is enough.

        Raises:
            NotImportable: The workers have loaded older code, or run another Python.
            BrokerUnreachable: The `up` has ended.
        """
        if not session.connection.connected and not self.running.is_alive:
            raise self.gone()
        await self._until_current()
        if is_offered(function, self._read()):
            return None
        if self.running.python != this_python():
            raise NotImportable(
                f"{function.name} is not one of the functions of {self}, which could only run it "
                f"with {self.running.python}, not with {this_python()}: start that with this "
                "Python, add the function's module to its TASKS, or use Cluster(share=False)"
            )
        ref = reference(function, limit=session.connection.room)
        if ref.value is None:
            ref = msgspec.structs.replace(ref, file=function.file)
        return ref

    async def require_offered(self, function: Function, session: Session) -> None:
        """Raise NotImportable unless the function can be called by name, as jobs are."""
        if await self.reference(function, session) is not None:
            raise NotImportable(
                f"{function.name} is not one of the functions of {self}, and a job outlives the "
                f"program that submits it: add {function.file or 'its module'} to the TASKS of "
                f"that, and restart it: {self._command([function.file or 'FILE.py'])}"
            )

    def watch(self, session: Session) -> None:
        """Follow to the next `up` of this directory when this one has ended."""

        async def lost() -> None:
            if not len(self._background):
                self._background.spawn(self._find_next(session), "find the next one")

        session.connection.on_lost(lost)

    async def close(self) -> None:
        """Stop looking for a new `up`."""
        await self._background.close()

    def gone(self) -> BrokerUnreachable:
        """Make the error for an `up` that has ended."""
        return BrokerUnreachable(
            f"{self}, which this cluster has joined, has ended: start it again there "
            f"({self._command()}), or start a new Cluster, which then runs workers of its own"
        )

    def __str__(self) -> str:
        return f"`jetmap up` (pid {self.running.pid}) in {self._cwd}"

    async def _find_next(self, session: Session) -> None:
        connection: Connection = session.connection
        since, has_warned = time.monotonic(), False
        while not connection.connected:
            found = find_running(self._cwd, self.running.pool)
            if found is not None and found.key and found != self.running:
                logger.warning("%s has followed; going on with it (pid %d)", self, found.pid)
                self.running = found
                self.sealer.renew(bytes.fromhex(found.key))
                session.forget_references()
                connection.move([found.url], found.auth)
                since = time.monotonic()
            elif found is None and not has_warned:
                logger.warning("%s", self.gone())
                has_warned = True
            if found is None and time.monotonic() - since > GONE_SECONDS:
                await session.dispatcher.end_all(self.gone())
                since = time.monotonic()
            await asyncio.sleep(LOOK_SECONDS)

    async def _until_current(self) -> None:
        """Wait for workers with the current code, which only `--reload` brings.

        Raises NotImportable if there are none.
        """
        if not (changed := changed_files(self._read())):
            return
        deadline = time.monotonic() + (self._timeout if self.running.reload else 0.0)
        while time.monotonic() < deadline:
            await asyncio.sleep(RELOAD_SECONDS)
            if not (changed := changed_files(self._read())):
                return
        files = ", ".join(sorted(file.removeprefix(f"{self._cwd}/") for file in changed))
        if self.running.reload:
            how = f"its workers are still starting after {self._timeout:g} s, or cannot: see there"
        else:
            how = f"restart it ({self._command()}), or start it with --reload"
        raise NotImportable(
            f"{self} runs older code: {files} changed since it was started; {how}. "
            "Cluster(share=False) runs workers of its own"
        )

    def _command(self, more: Sequence[str] = ()) -> str:
        return " ".join(["jetmap up", *self.running.tasks, *more])

    def _read(self) -> Code | None:
        """Read what the workers have loaded, if that has changed."""
        path = self.running.code_file
        try:
            stamp = path.stat().st_mtime_ns
        except OSError:
            return None
        if stamp != self._code[0]:
            self._code = stamp, read_code(path)
        return self._code[1]
