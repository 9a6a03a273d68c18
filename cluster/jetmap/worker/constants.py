"""Constants in a worker: each is mapped when its agent gives it, and decoded once."""

from __future__ import annotations

import msgspec

from jetmap.functions.constants import LoadedConstants
from jetmap.wire.constants import Constant, Given
from jetmap.wire.memory_files import MemoryFile

_given = msgspec.msgpack.Decoder(Given).decode


class WorkerConstants(LoadedConstants):
    """The constants that an agent has given to this worker, until it drops them."""

    def __init__(self) -> None:
        super().__init__(self._bytes)
        self._views: dict[str, memoryview] = {}
        self._refusals: dict[str, str] = {}

    def give(self, payload: bytes) -> None:
        """Map a constant for the chunks that follow, or note why it cannot be had."""
        given = _given(payload)
        self.drop(given.digest)
        if given.place is None:
            self._refusals[given.digest] = given.refusal
            return
        try:
            file = MemoryFile.open(given.place, given.size)
            try:
                self._views[given.digest] = file.view()
            finally:
                file.close()  # Its mapping stays.
        except (OSError, ValueError) as error:
            self._refusals[given.digest] = f"this worker cannot open its memory: {error}"

    def drop(self, digest: str) -> None:
        """Let go of a constant, unless a function has kept it."""
        super().drop(digest)
        self._views.pop(digest, None)
        self._refusals.pop(digest, None)

    def _bytes(self, constant: Constant) -> memoryview:
        found = self._views.get(constant.digest)
        if found is None:
            raise LookupError(self._refusals.get(constant.digest, "its host does not have it"))
        return found
