"""Values that were put for a job are read once, and kept until the job no longer runs here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import pytest

from jetmap.dispatch.constants import KeptConstants
from jetmap.jobs import held_constants as module
from jetmap.jobs.held_constants import HeldConstants
from jetmap.jobs.store import Store
from jetmap.wire.constants import Constant, digest_of
from jetmap.wire.memory_files import MemoryFile
from virtual_time import run

ONE, TWO = (Constant(digest_of(memoryview(data)), 3) for data in (b"one", b"two"))


def file_with(data: bytes) -> MemoryFile:
    file = MemoryFile.create(len(data))
    file.write(0, data)
    return file


def test_a_jobs_constants_are_read_once_and_those_that_are_here_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[tuple[str, Constant]] = []

    async def reading(store: Store, job: str, wanted: Iterable[Constant]) -> dict[str, MemoryFile]:
        wanted = list(wanted)
        read.extend((job, constant) for constant in wanted)
        return {constant.digest: file_with(b"two") for constant in wanted}

    async def test() -> None:
        kept = KeptConstants(None, "_INBOX.d")
        await kept.add(ONE.digest, file_with(b"one"))
        held = HeldConstants(cast(Store, None), "j", kept)
        for _ in range(2):
            await held.hold([ONE, TWO])
        assert read == [("j", TWO)] and held.digests == [ONE.digest, TWO.digest]
        held.release()
        assert held.digests == [] and TWO.digest not in kept
        assert bytes(kept.view(ONE.digest)) == b"one", "its caller has not closed it"
        await kept.close()

    monkeypatch.setattr(module, "read_constants", reading)
    run(test())
