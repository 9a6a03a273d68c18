"""Child processes of a soak: their start, their output and their end."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass
class Child:
    """A process of the soak. busy: whether a fault has it in its hands."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    busy: bool = False
    far: bool = False  # at the far end of the network that can be cut
    kind: str = ""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def ended(self, timeout: float) -> int | None:
        """Its exit code, or None if it does not end in time."""
        deadline = time.monotonic() + timeout
        while self.alive:
            if time.monotonic() > deadline:
                return None
            await asyncio.sleep(0.02)
        return self.process.poll()

    def tell(self, letter: str) -> None:
        """A word on its standard input."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # one that is gone is reported by whoever waits for it
            self.process.stdin.write(letter.encode())
            self.process.stdin.flush()

    def workers(self, *, all: bool = False) -> list[psutil.Process]:
        """all: with what they started."""
        try:
            return psutil.Process(self.pid).children(recursive=all)
        except psutil.NoSuchProcess:
            return []


def free_port(host: str) -> int:
    with socket.socket() as listener:
        listener.bind((host, 0))
        return int(listener.getsockname()[1])


async def get(url: str) -> bytes | None:
    """The body of a page, or None."""

    def fetch() -> bytes | None:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return bytes(answer.read())
        except (OSError, urllib.error.URLError):
            return None

    return await asyncio.to_thread(fetch)


async def answers(url: str, timeout: float, child: Child) -> None:
    """Wait until the page is there. Raise RuntimeError if it does not come."""
    deadline = time.monotonic() + timeout
    while await get(url) is None:
        if not child.alive or time.monotonic() > deadline:
            raise RuntimeError(f"{child.name} does not answer:\n{tail(child.log)}")
        await asyncio.sleep(0.05)


def tail(log: Path, lines: int = 20) -> Any:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
