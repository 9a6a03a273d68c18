"""Callers that are processes of their own; ``caller.py`` is what they run."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import HERE
from servers import Site
from waiting import PATIENCE


@dataclass(frozen=True)
class Said:
    """The figures that a caller prints at its end. again: chunks sent again. repeats: reports that
    came to it and told, at least in part, what it knew."""

    values: list[Any]
    again: int
    repeats: int


class Caller:
    """Runs a map of ``functions.logged``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    @asynccontextmanager
    async def on(
        cls, place: Site, log: Path, items: list[tuple[int, float]], within: Sequence[str] = ()
    ) -> AsyncIterator[Caller]:
        """within: the command that runs it elsewhere."""
        arguments = json.dumps([place.server.url, str(log), items])
        process = await asyncio.create_subprocess_exec(
            *(*within, sys.executable, str(HERE / "caller.py")),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        process.stdin.write(arguments.encode())
        process.stdin.close()
        try:
            yield cls(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def said(self, timeout: float = PATIENCE) -> Said:
        """Once it has ended."""
        assert self.process.stdout is not None
        async with asyncio.timeout(timeout):
            return Said(*json.loads(await self.process.stdout.read()))
