"""Uploads of a job's items."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.errors import JobEnded
from jetmap.jobs.record import InputPart
from jetmap.jobs.stored_input import StoredInput
from jetmap.jobs.upload import FRAGMENT_BYTES, IN_FLIGHT, PART_BYTES, PART_ITEMS
from jetmap.wire import subjects
from simulated_jobs import JobPool
from simulated_pool import FUNCTION
from virtual_time import run
from waiting import wait_until

_part = msgspec.msgpack.Decoder(InputPart).decode


async def uploaded(batches: list[list[int]], **options: Any) -> tuple[list[InputPart], str]:
    """Upload items of these sizes; return the parts and the digest of the record."""
    async with JobPool() as pool:
        await pool.agent(1)
        jobs = await pool.gateway()
        jobs._runner._closing = True  # The input is read here.
        upload = await jobs.begin(FUNCTION, format="json", **options)
        for sizes in batches:
            await upload.put([b"1" * size for size in sizes])
        record = await upload.commit()
        assert record.total == sum(map(len, batches))
        subject = subjects.job_input(jobs.store.pool, record.id)
        found, after = [], 0
        while stored := await jobs.store.fetch("INPUT", subject, after):
            found += [_part(message.data) for message in stored]
            after = stored[-1].seq
        assert record.parts == len(found)
        assert not upload._flying
        with pytest.raises(JobEnded):
            await upload.put([b"1"])
        return found, record.digest


@given(st.lists(st.lists(st.integers(1, PART_BYTES // 2), max_size=12), max_size=4))
@examples(16)
def test_items_arrive_in_parts_within_their_limit(batches: list[list[int]]) -> None:
    parts, _ = run(uploaded(batches))
    at, sizes = 0, [size for batch in batches for size in batch]
    for part in sorted(parts, key=lambda part: part.start):
        assert part.start == at
        items = msgspec.json.decode(part.items, type=list[msgspec.Raw])
        assert [len(bytes(item)) for item in items] == sizes[at : at + part.count]
        assert len(items) == part.count and len(part.items) <= PART_BYTES + 2
        at += part.count
    assert at == len(sizes)


def test_many_small_items_are_bounded_by_number_and_in_flight() -> None:
    parts, _ = run(uploaded([[1] * PART_ITEMS * (IN_FLIGHT + 2), [1]]))
    assert [part.count for part in sorted(parts, key=lambda p: p.start)][:2] == [PART_ITEMS] * 2


def test_the_digest_is_of_the_request_and_not_of_how_it_arrived() -> None:
    once = run(uploaded([[3, 4, 5]]))[1]
    assert run(uploaded([[3], [4, 5], []]))[1] == once
    assert run(uploaded([[3, 4, 6]]))[1] != once
    assert run(uploaded([[3, 4, 5]], timeout=9.0))[1] != once
    assert run(uploaded([[3, 4, 5]], kwargs=b"{}"))[1] != once
    assert len(once) == len(hashlib.sha256().hexdigest())


def test_an_item_larger_than_a_message_comes_back_whole() -> None:
    async def scenario() -> None:
        sizes = [10, 3 * FRAGMENT_BYTES, 1, FRAGMENT_BYTES - 1, 5 * FRAGMENT_BYTES + 7]
        items = [b"1" * size for size in sizes]
        async with JobPool() as pool:
            await pool.agent(1)
            jobs = await pool.gateway()
            jobs._runner._closing = True
            upload = await jobs.begin(FUNCTION, format="json")
            await upload.put(items)
            record = await upload.commit()
            assert record.total == len(items) and record.parts > len(items)
            subject = subjects.job_input(jobs.store.pool, record.id)
            stored = await jobs.store.fetch("INPUT", subject, 0)
            assert max(len(message.data) for message in stored) <= FRAGMENT_BYTES + 100
            # A part whose answer was lost is stored twice, behind later ones.
            await jobs.store.append(subject, stored[1].data)
            source = StoredInput(jobs.store, record)
            found: list[bytes] = []
            while len(found) < len(items):
                await wait_until(lambda: source.has_items, "more is read")
                piece = source.take(1, 1 << 20)
                assert piece is not None
                assert piece.start == len(found)
                found.append(piece.items)
            assert found == [b"[" + item + b"]" for item in items]
            assert not source._fragments
            await source.aclose()

    run(scenario())
