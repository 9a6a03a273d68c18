"""The pipe to a worker: frames whatever the cuts, both ends, and the last words of the dead."""

from __future__ import annotations

import asyncio
import importlib
import io
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
from jetmap.payload_buffer import LARGE_BYTES
from jetmap.wire import frames
from jetmap.wire.frames import READ_AHEAD, AgentPipe, BlockingPipe, Frames, frame
from waiting import PATIENCE

KINDS = [frames.READY, frames.PART, frames.LAST]
payloads = st.one_of(
    st.binary(max_size=300),
    st.integers(LARGE_BYTES - 10, LARGE_BYTES + 10).map(os.urandom),
    st.integers(READ_AHEAD - 10, 2 * READ_AHEAD).map(os.urandom),
)
some_frames = st.lists(st.tuples(st.sampled_from(KINDS), payloads), max_size=8)
cuts = st.lists(st.one_of(st.integers(1, 200), st.integers(1, READ_AHEAD)), min_size=1, max_size=10)


def feed(frames: Frames, data: bytes, sizes: list[int]) -> int:
    """Write data as a socket would, in pieces of these sizes, in turns; return their number."""
    view = memoryview(data)
    for reads, size in enumerate(itertools.cycle(sizes)):
        if not view:
            return reads
        buffer = frames.buffer()
        count = min(size, len(buffer), len(view))
        assert count
        buffer[:count] = view[:count]
        del buffer
        frames.on_read(count)
        view = view[count:]
    raise AssertionError


@examples(200)
@given(some_frames, cuts)
def test_frames_survive_any_fragmentation(
    sent: list[tuple[bytes, bytes]], sizes: list[int]
) -> None:
    arriving = Frames()
    received = []
    feed(arriving, b"".join(itertools.starmap(frame, sent)), sizes)
    while arriving.waiting:
        assert any(arriving.has(kind) for kind in KINDS)
        received.append(arriving.pop())
    # The beginning of a frame is not a frame.
    feed(arriving, frame(frames.LAST, b"half")[:-1], sizes)
    assert not arriving.waiting and not any(arriving.has(kind) for kind in KINDS)
    assert received == sent


def test_a_large_frame_is_read_into_a_buffer_of_its_own() -> None:
    arriving = Frames()
    size = 64 << 20
    data = frame(frames.LAST, bytes(size))
    # Its beginning arrives with what was before it; the rest may be read at once.
    assert feed(arriving, data + frame(frames.PART, b"x"), [READ_AHEAD, 1 << 30]) == 3
    _, payload = arriving.waiting[0]
    assert isinstance(payload, io.BytesIO) and payload.getvalue() is payload.getvalue()
    kind, value = arriving.pop()
    assert kind == frames.LAST and type(value) is bytes and len(value) == size
    assert arriving.pop() == (frames.PART, b"x")


def test_what_is_not_a_frame_is_bad_and_takes_no_memory() -> None:
    for rubbish in (b"\xff" * 100, bytes(100)):
        arriving = Frames()
        feed(arriving, rubbish, [1000])
        assert arriving.pop() == (frames.BAD, b"") and not arriving.waiting


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
    async with asyncio.timeout(PATIENCE):
        for payload in payloads:
            agent.send(frames.CHUNK, payload)
        for payload in payloads:
            assert await agent.receive() == (frames.CHUNK, payload)
        assert agent.first_at is not None
        agent.close()
        assert await agent.receive() is None
    agent.send(frames.CHUNK, b"dropped")
    await asyncio.get_running_loop().run_in_executor(None, thread.join)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_frames_to_a_worker_that_was_told_to_end_are_dropped(loop: str) -> None:
    async def run() -> list[tuple[bytes, bytes] | None]:
        ours, theirs = socket.socketpair()
        agent, worker = await AgentPipe.open(ours), BlockingPipe(theirs)
        try:
            agent.send(frames.CHUNK, b"1")
            agent.send_end()
            agent.send(frames.DROPPED, b"2")
            agent.send(frames.ITEMS, bytes(LARGE_BYTES))
            agent.send_parts(frames.ITEMS, [b"3", b"4"])
            agent.send_end()
            read = asyncio.to_thread(lambda: [worker.receive(), worker.receive()])
            return await asyncio.wait_for(read, PATIENCE)
        finally:
            agent.close()
            worker.close()

    factory = importlib.import_module(loop).new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(run()) == [(frames.CHUNK, b"1"), None]


@pytest.mark.anyio
async def test_one_who_stops_waiting_loses_no_frame() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        agent = await AgentPipe.open(ours)
        waiting = asyncio.ensure_future(agent.receive())
        await asyncio.sleep(0)
        waiting.cancel()
        theirs.sendall(frame(frames.PART, b"kept"))
        async with asyncio.timeout(PATIENCE):
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
        async with asyncio.timeout(PATIENCE):
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
        async with asyncio.timeout(PATIENCE):
            while (received := await agent.receive()) is not None:
                assert received == (frames.BAD, b"")
        talking.cancel()


def test_a_worker_imports_no_event_loop() -> None:
    program = "import jetmap.worker.main, sys; sys.exit('asyncio' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
