"""The constants of a job: stored with its input, read back whole, and removed with it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jetmap.errors import HostsFull, JobEnded
from jetmap.jobs import stored_constants as module
from jetmap.jobs.service import Jobs
from jetmap.jobs.stored_constants import read_constants
from jetmap.jobs.upload import PART_BYTES, Upload
from jetmap.wire import subjects
from jetmap.wire.constants import Constant, digest_of, pack_kwargs
from jetmap.wire.memory_files import MemoryFile
from simulated_jobs import JobPool
from simulated_pool import FUNCTION
from virtual_time import run

LARGE, SMALL = bytes(range(256)) * 4_000, b"small"


def constant(content: bytes) -> Constant:
    return Constant(digest_of(memoryview(content)), len(content))


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual time would jump while a thread works."""

    async def to_thread(f: Any, *args: Any) -> Any:
        return f(*args)

    monkeypatch.setattr(asyncio, "to_thread", to_thread)


async def begun(pool: JobPool, *contents: bytes, **options: Any) -> tuple[Jobs, Upload]:
    """Begin the upload of a job with constants, which nobody runs."""
    await pool.agent(1)
    jobs = await pool.gateway()
    jobs._runner._closing = True
    found = {str(n): constant(content) for n, content in enumerate(contents)}
    kwargs = pack_kwargs(b"", found)
    upload = await jobs.begin(FUNCTION, format="json", kwargs=kwargs, **options)
    for content in contents:
        await upload.put_constant(constant(content), memoryview(content))
    await upload.put([b"1"])
    return jobs, upload


async def read(jobs: Jobs, job: str, *wanted: Constant) -> list[bytes]:
    files = await read_constants(jobs.store, job, wanted)
    return [bytes(files[each.digest].view()) for each in wanted]


def test_constants_are_read_as_they_were_stored_and_removed_with_the_input() -> None:
    async def test() -> None:
        async with JobPool() as pool:
            jobs, upload = await begun(pool, LARGE, SMALL)
            record = await upload.commit()
            assert record.has_constants and record.parts == 1
            assert record.input_bytes > len(LARGE) + len(SMALL), "they count in the store"
            both = constant(LARGE), constant(SMALL)
            assert await read(jobs, record.id, *both) == [LARGE, SMALL]
            assert await read(jobs, record.id, both[1]) == [SMALL]
            subject = subjects.job_constants(jobs.store.pool, record.id)
            assert (await jobs.store.size("INPUT", subject))[0] == -(-len(LARGE) // PART_BYTES) + 1
            assert await jobs.store.jobs_in("INPUT") == {record.id}
            await jobs.store.remove_input(record)
            assert await jobs.store.jobs_in("INPUT") == set()

    run(test())


def test_a_job_that_is_removed_leaves_none() -> None:
    async def test() -> None:
        async with JobPool() as pool:
            jobs, upload = await begun(pool, LARGE)
            await upload.abort()
            assert await jobs.store.jobs_in("INPUT") == set()

    run(test())


def test_the_same_key_and_content_is_the_same_job() -> None:
    async def test() -> None:
        async with JobPool() as pool:
            jobs, upload = await begun(pool, LARGE, key="k")
            first = await upload.commit()
            kwargs = pack_kwargs(b"", {"0": constant(LARGE)})
            again = await jobs.begin(FUNCTION, format="json", kwargs=kwargs, key="k")
            await again.put_constant(constant(LARGE), memoryview(LARGE))
            await again.put([b"1"])
            assert (await again.commit()).id == first.id

    run(test())


def test_what_the_store_has_lost_ends_the_job() -> None:
    async def test() -> None:
        async with JobPool() as pool:
            jobs, upload = await begun(pool, SMALL)
            record = await upload.commit()
            with pytest.raises(JobEnded, match="is not in the store"):
                await read(jobs, record.id, constant(LARGE))
            with pytest.raises(JobEnded, match="has changed in the store"):
                changed = Constant(constant(SMALL).digest, len(SMALL))
                await upload_wrong(jobs, record.id)
                await read(jobs, record.id + "x", changed)

    async def upload_wrong(jobs: Jobs, job: str) -> None:
        part = module.ConstantPart(constant(SMALL).digest, 0, memoryview(b"other"))
        subject = subjects.job_constants(jobs.store.pool, job + "x")
        await jobs.store.append(subject, module.msgspec.msgpack.encode(part))

    run(test())


def test_a_process_without_room_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(size: int) -> MemoryFile:
        raise OSError(28, "No space left on device")

    async def test() -> None:
        async with JobPool() as pool:
            jobs, upload = await begun(pool, SMALL)
            record = await upload.commit()
            monkeypatch.setattr(module.MemoryFile, "create", create)
            with pytest.raises(HostsFull, match=r"no room for a value of 5 bytes .* put for it"):
                await read(jobs, record.id, constant(SMALL))

    run(test())
