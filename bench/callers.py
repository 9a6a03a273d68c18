"""Start the callers of ``bench.helpers`` and read their answers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from .servers import ROOT, stop


class Caller:
    """Process that calls the cluster."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    async def answer(self) -> Any:
        """Read and decode its next line."""
        assert self._process.stdout is not None
        line = await asyncio.to_thread(self._process.stdout.readline)
        if not line:
            code = await asyncio.to_thread(self._process.wait)
            raise RuntimeError(f"{self._process.args!r} ended with {code}")
        return msgspec.json.decode(line)

    async def leave(self) -> None:
        """Close its input, which asks it to end, and make sure that it does."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.to_thread(self._process.wait, 5)
        except subprocess.TimeoutExpired:
            await stop(self._process)
        assert self._process.stdout is not None
        self._process.stdout.close()


@asynccontextmanager
async def caller(*arguments: object) -> AsyncIterator[Caller]:
    """Run ``python -m bench.helpers`` with these arguments until the block is left."""
    command = [sys.executable, "-m", "bench.helpers", *map(str, arguments)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: ASYNC220 - returns at once
    one = Caller(process)
    try:
        yield one
    finally:
        await one.leave()
