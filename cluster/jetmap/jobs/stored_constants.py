"""The constants of a job: stored in parts beside its input, and read by whoever runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from jetmap.errors import HostsFull, JobEnded
from jetmap.wire import subjects
from jetmap.wire.constants import Constant, digest_of
from jetmap.wire.memory_files import MemoryFile, room

from .store import Store

# Seconds between attempts to read, and after which parts that cannot be read count as lost.
AGAIN_SECONDS, MISSING_SECONDS = 0.2, 30.0


class ConstantPart(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A part of a constant's bytes, from ``offset`` on."""

    digest: str
    offset: int
    data: memoryview


_part = msgspec.msgpack.Decoder(ConstantPart).decode


class _Incoming:
    """A constant that is read; a part that was stored twice counts once."""

    def __init__(self, constant: Constant) -> None:
        self.digest = constant.digest
        self.left = constant.size
        self._offsets: set[int] = set()
        try:
            self.file = MemoryFile.create(constant.size)
        except OSError as error:
            raise _no_room(constant.size) from error

    def add(self, part: ConstantPart) -> None:
        if part.offset in self._offsets:
            return
        self._offsets.add(part.offset)
        self.left -= len(part.data)
        try:
            self.file.write(part.offset, part.data)
        except OSError as error:
            raise _no_room(self.file.size) from error

    async def complete(self) -> MemoryFile:
        self.file.seal()
        if await asyncio.to_thread(digest_of, self.file.view()) != self.digest:
            raise JobEnded("a value that was put for it has changed in the store", state="failed")
        return self.file


async def read_constants(
    store: Store, job: str, wanted: Iterable[Constant]
) -> dict[str, MemoryFile]:
    """Read constants of a job from the store; return their files by their digests.

    Raises HostsFull, BrokerUnreachable, and JobEnded if parts are lost.
    """
    incoming = {constant.digest: _Incoming(constant) for constant in wanted}
    subject = subjects.job_constants(store.pool, job)
    after, missing = 0, 0.0
    while any(each.left for each in incoming.values()):
        found = await store.fetch("INPUT", subject, after)
        for stored in found:
            after = stored.seq
            part = _part(stored.data)
            if part.digest in incoming:
                incoming[part.digest].add(part)
        if not found:  # A replica may lag behind what was stored.
            missing += AGAIN_SECONDS
            if missing > MISSING_SECONDS:
                raise JobEnded("a value that was put for it is not in the store", state="failed")
            await asyncio.sleep(AGAIN_SECONDS)
    return {digest: await each.complete() for digest, each in incoming.items()}


def _no_room(size: int) -> HostsFull:
    free = room()
    return HostsFull(
        f"the process that runs the job has no room for a value of {size:,} bytes that was put for "
        f"it: about {free:,} are free in memory or in its directory for temporary files",
        size=size,
        room=free,
    )
