"""The pipe to a worker: frames whatever the cuts, both ends, and the last words of the dead."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import socket
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.wire import frames
from jetmap.wire.frames import AgentPipe, BlockingPipe, Frames, frame

KINDS = [frames.READY, frames.PART, frames.LAST]
some_frames = st.lists(st.tuples(st.sampled_from(KINDS), st.binary(max_size=300)), max_size=12)
cuts = st.lists(st.integers(1, 200), min_size=1, max_size=10)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut data into pieces of these sizes, in turns."""
    pieces = []
    for size in itertools.cycle(sizes):
        if not data:
            return pieces
        pieces.append(data[:size])
        data = data[size:]
    return pieces


@examples(200)
@given(some_frames, cuts)
def test_frames_survive_any_fragmentation(
    sent: list[tuple[bytes, bytes]], sizes: list[int]
) -> None:
    arriving = Frames()
    received = []
    for piece in cut(b"".join(itertools.starmap(frame, sent)), sizes):
        arriving.feed(piece)
        while arriving:
            assert arriving.next_kind in KINDS
            received.append(arriving.pop())
    # The beginning of a frame is not a frame.
    arriving.feed(frame(frames.LAST, b"half")[:-1])
    assert not arriving and arriving.next_kind is None
    assert received == sent


class Counted(bytes):
    """Bytes that count what is copied out of them."""

    copied = 0

    def __getitem__(self, key: object) -> bytes:  # type: ignore[override]
        part = super().__getitem__(key)  # type: ignore[call-overload]
        Counted.copied += len(part)
        return Counted(part)


@pytest.mark.parametrize(
    ("payload", "sizes"),
    [
        (64 << 20, [65_536]),  # As a socket gives it.
        (1 << 20, [256]),
        (100_000, [1]),
        (1 << 20, [1, 65_536, 3]),
        (1 << 20, [2, 262_144]),
    ],
)
def test_a_large_frame_costs_what_it_weighs(
    payload: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def joined(parts: list[bytes]) -> bytes:
        whole = b"".join(parts)
        Counted.copied += len(whole)
        return Counted(whole)

    monkeypatch.setattr(frames, "_join", joined)
    monkeypatch.setattr(Counted, "copied", 0)
    data = frame(frames.LAST, bytes(payload)) * 2
    arriving = Frames()
    at = 0
    for size in itertools.cycle(sizes):
        if at >= len(data):
            break
        arriving.feed(Counted(data[at : at + size]))
        at += size
    assert len(arriving) == 2
    assert Counted.copied <= 4 * len(data)


def test_small_frames_that_arrive_together_cost_what_they_weigh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Counted, "copied", 0)
    data = frame(frames.PART, b"x" * 20) * 3_000
    arriving = Frames()
    arriving.feed(Counted(data))
    assert len(arriving) == 3_000 and Counted.copied <= len(data)


@pytest.mark.anyio
async def test_both_ends_understand_each_other() -> None:
    ours, theirs = socket.socketpair()
    worker = BlockingPipe(theirs)
    payloads = [b"", b"x", random.randbytes(1 << 20), b"y" * 70_000]

    def echo() -> None:
        while (received := worker.receive()) is not None:
            worker.send(*received)
        worker.close()

    thread = threading.Thread(target=echo)
    thread.start()
    agent = await AgentPipe.open(ours)
    assert agent.first_at is None and not agent.has_frames
    async with asyncio.timeout(10):
        for payload in payloads:
            agent.send(frames.CHUNK, payload)
        for payload in payloads:
            assert await agent.receive() == (frames.CHUNK, payload)
        assert agent.first_at is not None
        agent.close()
        assert await agent.receive() is None
    agent.send(frames.CHUNK, b"dropped")
    await asyncio.get_running_loop().run_in_executor(None, thread.join)


@pytest.mark.anyio
async def test_one_who_stops_waiting_loses_no_frame() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        agent = await AgentPipe.open(ours)
        waiting = asyncio.ensure_future(agent.receive())
        await asyncio.sleep(0)
        waiting.cancel()
        theirs.sendall(frame(frames.PART, b"kept"))
        async with asyncio.timeout(10):
            assert await agent.receive() == (frames.PART, b"kept")
        agent.close()


@pytest.mark.anyio
async def test_what_the_dead_had_sent_is_read_though_another_holds_its_end() -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with theirs:  # As a forked child would, for ever.
        agent = await AgentPipe.open(ours)
        sent = [os.urandom(60_000) for _ in range(3)]
        rest = b"".join(frame(frames.PART, payload) for payload in sent)
        while rest:
            try:
                rest = rest[theirs.send(rest) :]
            except BlockingIOError:
                await asyncio.sleep(0)
        agent.finish()
        async with asyncio.timeout(5):
            for payload in sent:
                assert await agent.receive() == (frames.PART, payload)
            assert await agent.receive() is None


@pytest.mark.anyio
async def test_a_child_that_writes_on_and_on_is_not_read_for_ever() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        agent = await AgentPipe.open(ours)
        agent.finish()

        async def chatter() -> None:
            while True:
                theirs.send(b"x")
                await asyncio.sleep(0.005)

        talking = asyncio.ensure_future(chatter())
        async with asyncio.timeout(10):
            assert await agent.receive() is None
        talking.cancel()


def test_a_worker_imports_no_event_loop() -> None:
    program = "import jetmap.worker.main, sys; sys.exit('asyncio' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
