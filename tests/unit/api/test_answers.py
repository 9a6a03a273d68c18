"""The parts of a list's answer: the spool, what was gathered, the first failure, translation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetmap.dispatch.outcomes import Batch
from jetmap.settings import LimitSettings
from jetmap.wire.messages import ErrorRecord
from jetmap_api.answers import Gathered, ListAnswer
from jetmap_api.problems import Problem
from jetmap_api.spool import SpooledPipe
from raw_bodies import LIMITS, held

pytestmark = pytest.mark.anyio


def spool_limits(buffer: int, spool: int) -> LimitSettings:
    return LIMITS.replace(max_buffer_bytes=buffer, max_spool_bytes=spool)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=60), st.integers(1, 100))
def test_the_pipe_keeps_bytes_in_order(steps: list[tuple[bool, int]], buffer: int) -> None:
    async def go() -> None:
        pipe = SpooledPipe(spool_limits(buffer, 1 << 20), held())
        put = b""
        got = b""
        try:
            for write, size in steps:
                if write:
                    data = bytes((len(put) + i) % 256 for i in range(size))
                    pipe.put(data)
                    put += data
                elif pipe.size:
                    got += await pipe.get() or b""
            pipe.end(b"end")
            while (data_or_end := await pipe.get()) is not None:
                got += data_or_end
            assert got == put + b"end"
            assert pipe.size == 0
        finally:
            pipe.discard()

    asyncio.run(go())


@given(st.lists(st.integers(0, 5), min_size=1), st.randoms(), st.sampled_from([1, 50, 10_000]))
def test_gathered_batches_are_one_list(counts: list[int], random: Any, buffer: int) -> None:
    total = sum(counts)
    batches = []
    start = 0
    for count in counts:
        values = list(range(start, start + count))
        batches.append(Batch(start, count, msgspec.json.encode(values), []))
        start += count
    random.shuffle(batches)
    gathered = Gathered("json", spool_limits(buffer, 1 << 20), held())
    seen: set[int] = set()
    for batch in batches:
        gathered.add(batch)
        seen |= set(range(batch.start, batch.start + batch.count))
        for index in range(total + 1):
            assert gathered.count_before(index) == len(set(range(index)) & seen)
    size, whole = gathered.size, gathered.whole()
    body = whole if whole is not None else b"".join(gathered.pieces())
    assert msgspec.json.decode(body) == list(range(total)) and len(body) == size
    gathered.close()


class FakeMap:
    """Batches in a given order, as a map yields them."""

    id = "m"
    total = None

    def __init__(self, batches: list[Batch]) -> None:
        self.left = batches
        self.stopped = False
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[Batch]:
        while self.left:
            yield self.left.pop(0)

    def stop(self, before: int = 0) -> None:
        self.stopped = True

    async def aclose(self) -> None:
        self.closed = True


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 15)), min_size=1), st.randoms())
def test_the_first_failure_is_that_of_a_loop(shape: list[tuple[int, int]], random: Any) -> None:
    batches = []
    failing = []
    start = 0
    for count, bits in shape:
        bad = [start + i for i in range(count) if bits >> i & 1]
        records = [ErrorRecord(i, "raised", "ValueError", "bad") for i in bad]
        batches.append(Batch(start, count, msgspec.json.encode([None] * count), records))
        failing += bad
        start += count
    random.shuffle(batches)
    run = FakeMap(list(batches))
    answer = ListAnswer("json", spool_limits(1000, 1000), held(), collect=False, debug=False)
    try:
        asyncio.run(answer.gather(run, "json"))
        assert not failing
    except Problem as problem:
        assert problem.members["error"]["index"] == min(failing)
        taken = batches[: len(batches) - len(run.left)]
        needed = [b for b in batches if b.start <= min(failing)]
        assert taken[-1] in needed  # nothing later was waited for
    assert run.stopped == bool(failing)
    assert run.closed
