"""The chunks of one worker: their order, requests to stop, and what is lost with the worker."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, cast

import pytest

import virtual_time
from jetmap.agent.batches import ChunkBatch
from jetmap.agent.holdings import HeldChunk
from jetmap.agent.warm_ups import WarmUps
from jetmap.agent.watchdogs import JAM_SECONDS
from jetmap.agent.worker_queue import (
    HURRIES_KEPT,
    SKIP_SECONDS,
    KillReason,
    QueueEntry,
    WorkerQueue,
    crash_of,
)
from jetmap.agent.worker_state import Death
from jetmap.wire.messages import ChunkHead, Hurry, Rest
from jetmap.worker.progress import ITEM, STRETCH_SHIFT, ProgressPages


class Owner:
    """A slot that notes what its worker's queue asks for."""

    def __init__(self) -> None:
        self.progress = ProgressPages.create()
        self.queue = WorkerQueue(self, WarmUps(60.0), self.progress)
        self.sent: list[bytes] = []
        self.kills: list[KillReason] = []
        self.revoked: list[int] = []
        self.rests: list[tuple[HeldChunk, int]] = []

    def kill(self, reason: KillReason) -> None:
        self.kills.append(reason)

    def hand_back(self, entries: list[QueueEntry]) -> None:
        self.revoked += [entry.number for entry in entries]

    def hand_on(self, held: HeldChunk, rest: Rest) -> None:
        self.rests.append((held, rest.start))

    def push(self, count: int, *, items: int = 1, timeout: float | None = None) -> list[HeldChunk]:
        chunks = []
        for number in range(count):
            head = ChunkHead("m", number, 1, "f", "json", 0, items, "i", timeout, 0.5)
            held = HeldChunk(head, [], b"%d" % number, 0, 0, cast(Any, None))
            chunks.append(held)
        self.queue.push(chunks, self.sent.append)
        return chunks


def test_chunks_are_sent_and_ended_in_order() -> None:
    async def scenario() -> None:
        owner = Owner()
        first, second = owner.push(2)
        assert owner.sent == [b"0", b"1"] and len(owner.queue) == 2
        assert owner.queue.held is first and owner.queue.find(second)
        entry = owner.queue.pop()
        assert entry is not None and entry.held is first and owner.queue.latest is first
        owner.queue.advance()
        assert owner.queue.held is second and not owner.queue.find(first)
        owner.queue.pop()
        assert owner.queue.held is None and owner.queue.pop() is None

    virtual_time.run(scenario())


@pytest.mark.parametrize("ends_in_time", [True, False])
def test_a_chunk_that_is_to_stop_has_a_while(ends_in_time: bool) -> None:
    async def scenario() -> None:
        owner = Owner()
        owner.push(1)
        (entry,) = owner.queue
        owner.queue.stop(entry, 2.0)
        assert owner.progress.stopping
        await asyncio.sleep(1)
        if ends_in_time:
            owner.queue.pop()
        await asyncio.sleep(5)
        assert [reason.reason for reason in owner.kills] == ([] if ends_in_time else ["stopped"])

    virtual_time.run(scenario())


def test_a_request_to_stop_is_for_its_own_chunk() -> None:
    async def scenario() -> None:
        owner = Owner()
        _, second, _ = owner.push(3)
        owner.progress.begin(1)
        entry = owner.queue.find(second)
        assert entry is not None
        owner.queue.stop(entry, 2.0)
        assert not owner.progress.stopping, "the first one goes on"
        owner.queue.pop()
        owner.queue.advance()
        assert owner.progress.stopping, "now it is the second one's turn"
        owner.queue.pop()
        owner.queue.advance()
        assert not owner.progress.stopping
        await asyncio.sleep(0.01)
        assert not owner.kills

    virtual_time.run(scenario())


def test_a_slow_chunk_hands_back_those_that_are_not_begun() -> None:
    async def scenario() -> None:
        owner = Owner()
        owner.push(4)
        owner.progress.begin(1)
        await asyncio.sleep(3 * JAM_SECONDS)
        assert owner.revoked == [2, 3, 4]
        owner.queue.pop()
        assert owner.queue.held is None, "it was handed back"
        owner.queue.advance()
        await asyncio.sleep(2 * SKIP_SECONDS)
        assert owner.kills, "it does not take a second to pass over a chunk"

    virtual_time.run(scenario())


def test_the_item_of_a_timeout_is_named() -> None:
    async def scenario() -> KillReason:
        owner = Owner()
        (held,) = owner.push(1, items=3, timeout=5.0)
        owner.progress.begin(1)
        owner.progress.enter(1, int(asyncio.get_running_loop().time() * 1e9))
        assert owner.queue.item == 1
        await asyncio.sleep(6)
        (reason,) = owner.kills
        assert reason.entry is not None and reason.entry.held is held
        return reason

    reason = virtual_time.run(scenario())
    assert (reason.reason, reason.item, reason.beside) == ("timeout", 1, "")


def test_what_is_lost_with_a_worker_is_what_it_has_not_ended() -> None:
    async def scenario() -> None:
        owner = Owner()
        chunks = owner.push(3)
        owner.progress.begin(1)
        owner.progress.enter(0)
        assert owner.queue.mark() == "[m item 0]"
        (entry,) = [e for e in owner.queue if e.held is chunks[2]]
        entry.revoked = True
        lost = owner.queue.lose(partial(crash_of, DEATH, None))
        assert [held for held, _ in lost.chunks] == chunks[:2]
        (_, crash), (_, unbegun) = lost.chunks
        assert crash is not None and (crash.item, crash.signal) == (0, 11) and unbegun is None
        assert len(owner.queue) == 0 and owner.queue.held is None
        await asyncio.sleep(10)
        assert not owner.kills, "its watches have ended"

    virtual_time.run(scenario())


def test_a_death_among_items_that_were_entered_together_names_them_all() -> None:
    async def scenario() -> None:
        owner = Owner()
        owner.push(1, items=40)
        owner.progress.begin(1)
        owner.progress.words[ITEM] = (15 << STRETCH_SHIFT) | (8 + 1)
        assert owner.queue.mark() == "[m items 8-23]" and owner.queue.item == 8
        (_, crash), *others = owner.queue.lose(partial(crash_of, DEATH, None)).chunks
        assert not others and crash is not None
        assert (crash.item, crash.items, crash.reason) == (8, 16, "died")
        assert "in one of 16 items" in crash.message

    virtual_time.run(scenario())


def test_output_without_pages_has_no_item() -> None:
    owner = Owner()
    assert WorkerQueue(owner, WarmUps(1.0)).mark() == ""
    owner.progress.close()
    assert owner.queue.mark() == ""


DEATH = Death(11, None, 5 << 20)


def blamed(killed: KillReason | None, item: int | None = 3) -> tuple[int | None, str, str]:
    crash = crash_of(DEATH, killed, ENTRY, item)
    return crash.item, crash.reason, crash.message


ENTRY = QueueEntry(
    1,
    HeldChunk(
        ChunkHead("m", 1, 1, "f", "json", 0, 9, "i", 2.5, 0.0), [], b"", 0, 0, cast(Any, None)
    ),
)


def test_only_the_item_in_progress_is_to_blame() -> None:
    item, reason, message = blamed(None)
    assert (item, reason) == (3, "died") and "SIGSEGV" in message and "5 MiB" in message
    item, reason, message = blamed(KillReason("timeout", ENTRY, 3, " and more"))
    assert (item, reason) == (3, "timeout") and "its timeout of 2.5 s and more" in message
    for killed in (
        KillReason("stopped"),
        KillReason("timeout", ENTRY, 2),  # It has just finished that item.
        KillReason("timeout", QueueEntry(1, ENTRY.held), 3),  # It was another chunk's.
    ):
        assert blamed(killed) == (None, "stopped", "the worker was stopped")


def batch_of(owner: Owner, sizes: list[int]) -> list[HeldChunk]:
    """Give the worker a batch."""
    chunks = []
    for number, count in enumerate(sizes):
        head = ChunkHead(f"m{number}", 1, 1, "f", "json", 0, count, "i", 5.0, 0.5)
        chunks.append(HeldChunk(head, [], b"", 0, 0, cast(Any, None)))
    batch = ChunkBatch(chunks, [sum(sizes)])
    owner.queue.push(chunks, owner.sent.append, batch)
    owner.progress.begin(1)
    return chunks


def test_a_hurried_chunk_ends_early_and_the_one_behind_it_does_not() -> None:
    async def scenario() -> None:
        owner = Owner()
        owner.push(2, items=5)
        owner.queue.hurry(Hurry("another map", 9, 0.05))
        assert not owner.progress.stopping
        owner.queue.hurry(Hurry("m", 0, 0.05))
        assert owner.progress.stopping
        owner.queue.pop()
        owner.queue.advance()
        await asyncio.sleep(1.0)
        assert not owner.progress.stopping, "it was sent later"
        owner.queue.pop()
        owner.queue.hurry(Hurry("m", 9, 0.05))  # It has nothing.
        assert not owner.progress.stopping and not owner.kills

    virtual_time.run(scenario())


@pytest.mark.parametrize(("usual", "ends"), [(0.05, True), (0.3, False)])
def test_a_long_chunk_that_waits_is_hurried_when_it_begins(usual: float, ends: bool) -> None:
    async def scenario() -> None:
        owner = Owner()
        owner.queue.hurry(Hurry("m", 0, usual))
        owner.push(1, items=5)  # Its budget is 0.5 s.
        await asyncio.sleep(usual / 2)
        assert not owner.progress.stopping
        await asyncio.sleep(usual)
        assert owner.progress.stopping == ends
        owner.queue.pop()

    virtual_time.run(scenario())


def test_only_the_latest_requests_are_remembered() -> None:
    async def scenario() -> None:
        owner = Owner()
        for number in range(3 * HURRIES_KEPT):
            owner.queue.hurry(Hurry(f"m{number}", 9, 0.05))
        assert len(owner.queue._hurries) == HURRIES_KEPT

    virtual_time.run(scenario())


def test_a_batch_is_not_hurried() -> None:
    async def scenario() -> None:
        owner = Owner()
        batch_of(owner, [1, 2, 1])
        owner.queue.hurry(Hurry("m", 9, 0.05))
        assert not owner.progress.stopping

    virtual_time.run(scenario())


def test_a_batch_goes_on_for_those_who_want_it() -> None:
    async def scenario() -> None:
        owner = Owner()
        batch_of(owner, [1, 2, 1])
        first, second, third = owner.queue
        owner.queue.stop(first, 0.5)
        owner.queue.stop(third, 0.5)
        assert not owner.progress.stopping
        await asyncio.sleep(JAM_SECONDS * 3)
        assert not owner.kills and not owner.revoked, "its chunks take one call"
        owner.queue.stop(second, 0.5)
        assert owner.progress.stopping
        await asyncio.sleep(1)
        assert len(owner.kills) == 1

    virtual_time.run(scenario())


def test_a_batch_that_costs_its_worker_goes_on_in_halves() -> None:
    async def scenario() -> None:
        owner = Owner()
        chunks = batch_of(owner, [1, 2, 3])
        owner.progress.enter_call(0, 6)
        lost = owner.queue.lose(partial(crash_of, DEATH, None))
        assert not lost.chunks and lost.halved is not None
        (again,) = lost.again
        assert (again.chunks, again.runs, lost.items) == (chunks, [3, 3], 6)
        owner.queue.push(again.chunks, owner.sent.append, again)
        owner.progress.begin(4)
        owner.progress.enter_call(0, 1)
        lost = owner.queue.lose(partial(crash_of, DEATH, None))
        ((held, crash),) = lost.chunks
        assert held is chunks[0] and crash is not None and crash.item == 0 and not lost.halved
        assert [each.chunks for each in lost.again] == [chunks[1:]], "they lose no attempt"

    virtual_time.run(scenario())


def test_items_that_were_handed_on_are_not_computed_again_with_a_call_that_costs_its_worker() -> (
    None
):
    async def scenario() -> None:
        owner = Owner()
        (held,) = owner.push(1, items=48)  # Its budget is 0.5 s.
        owner.progress.begin(1)
        owner.progress.expect(asyncio.get_running_loop().time(), 0.0)
        owner.progress.enter_call(0, 16)
        await asyncio.sleep(1)
        assert owner.rests == [(held, 16)]
        lost = owner.queue.lose(partial(crash_of, DEATH, None))
        (again,) = lost.again
        assert (again.chunks, again.runs, again.items) == ([held], [8, 8], 16)

    virtual_time.run(scenario())


@pytest.mark.parametrize("is_slow", [True, False])
def test_chunks_behind_a_call_that_costs_its_worker_are_not_computed_with_it(is_slow: bool) -> None:
    async def scenario() -> None:
        owner = Owner()
        chunks = owner.push(3, items=16)
        owner.progress.begin(1)
        owner.progress.enter_call(0, 16)
        await asyncio.sleep(3 * JAM_SECONDS if is_slow else 0)
        assert owner.revoked == ([2, 3] if is_slow else [])
        lost = owner.queue.lose(partial(crash_of, DEATH, None))
        (again,) = lost.again
        assert (again.chunks, again.runs) == (chunks[:1], [8, 8])
        # Those that were handed back are elsewhere by now.
        assert lost.chunks == [(held, None) for held in chunks[1:] if not is_slow]

    virtual_time.run(scenario())


def test_a_worker_that_dies_between_the_reports_of_a_batch_is_not_forgotten() -> None:
    """The value of one of its items may kill it when it is encoded."""

    async def scenario() -> None:
        owner = Owner()
        chunks = batch_of(owner, [1, 1, 1])
        owner.progress.enter_call(0, 3)
        owner.progress.leave()
        owner.queue.pop()
        lost = owner.queue.lose(partial(crash_of, DEATH, None))
        assert [each.chunks for each in lost.again] == [chunks[1:2], chunks[2:]]
        owner.queue.push(chunks[1:2], owner.sent.append, lost.again[0])
        owner.progress.begin(4)
        lost = owner.queue.lose(partial(crash_of, DEATH, None))
        ((held, crash),) = lost.chunks
        assert held is chunks[1] and crash is not None and not lost.again

    virtual_time.run(scenario())


def test_a_batch_whose_worker_was_stopped_blames_nobody() -> None:
    async def scenario() -> None:
        owner = Owner()
        batch_of(owner, [1, 1])
        owner.progress.enter_call(0, 2)
        stopped = KillReason("stopped")
        lost = owner.queue.lose(partial(crash_of, DEATH, stopped))
        assert not lost.again and len(lost.chunks) == 2
        assert all(crash is None or crash.item is None for _, crash in lost.chunks)

    virtual_time.run(scenario())


def test_a_call_that_takes_too_long_is_halved() -> None:
    async def scenario() -> None:
        owner = Owner()
        chunks = batch_of(owner, [2, 2])
        owner.progress.enter_call(0, 4, int(asyncio.get_running_loop().time() * 1e9))
        await asyncio.sleep(6)
        (killed,) = owner.kills
        lost = owner.queue.lose(partial(crash_of, DEATH, killed))
        (again,) = lost.again
        assert (again.chunks, again.runs) == (chunks, [2, 2]) and not lost.chunks
        assert lost.halved is not None and lost.halved[1].reason == "timeout"

    virtual_time.run(scenario())


@pytest.mark.parametrize("is_call", [True, False])
def test_what_a_chunk_gives_back_begins_behind_what_was_entered(is_call: bool) -> None:
    async def scenario() -> None:
        owner = Owner()
        (held,) = owner.push(1, items=10)
        owner.progress.begin(1)
        owner.progress.expect(asyncio.get_running_loop().time(), 0.0)
        if is_call:
            owner.progress.enter_call(4, 4)
        else:
            owner.progress.words[ITEM] = (3 << STRETCH_SHIFT) | (4 + 1)
        await asyncio.sleep(1)
        assert owner.rests == [(held, 8)]

    virtual_time.run(scenario())
