"""The values that were put for a job, kept by the process that runs it."""

from __future__ import annotations

from collections.abc import Iterable

from jetmap.dispatch.constants import KeptConstants
from jetmap.wire.constants import Constant

from .store import Store
from .stored_constants import read_constants


class HeldConstants:
    """Keep a job's constants while it runs here: those that are here already, others by reading.

    Args:
        job: Its id.
        kept: The constants of this process.
    """

    def __init__(self, store: Store, job: str, kept: KeptConstants) -> None:
        self.digests: list[str] = []
        self._store = store
        self._job = job
        self._kept = kept

    async def hold(self, wanted: Iterable[Constant]) -> None:
        """Keep these constants too. Raises HostsFull if this host has no room for them."""
        missing = [constant for constant in wanted if constant.digest not in self.digests]
        known = [constant.digest for constant in missing if constant.digest in self._kept]
        self._kept.hold(known)
        self.digests += known
        others = [constant for constant in missing if constant.digest not in known]
        if others:
            files = await read_constants(self._store, self._job, others)
            for digest, file in files.items():
                await self._kept.add(digest, file)
                self.digests.append(digest)

    def release(self) -> None:
        """Keep none any more."""
        self._kept.release(self.digests)
        self.digests.clear()
