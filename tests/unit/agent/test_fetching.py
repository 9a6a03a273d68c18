"""Chunks whose items or constants did not come with them."""

from __future__ import annotations

from typing import Any, cast

import pytest

from jetmap.agent.fetching import DELIVERIES, Fetching
from jetmap.agent.holdings import HeldChunk, Lease
from jetmap.wire.constants import Constant, pack_kwargs
from jetmap.wire.messages import ChunkHead, Place, Region
from lone_agent import LoneAgent
from virtual_time import run

PLACE = Place("i", 2)
SHARED = Place("i", 2, Region(0, 2, 1))


class Kept:
    """The constants of a host. wanted: whether those who need them still do when they come."""

    def __init__(self) -> None:
        self.here, self.wanted = False, True

    def are_here(self, held: HeldChunk) -> bool:
        return self.here

    async def fetch(self, held: HeldChunk) -> bool:
        self.here = True
        return self.wanted


class Elsewhere:
    """The transfers of an agent, its neighbours, and what it withdraws."""

    def __init__(self, *, shares_memory: bool = False) -> None:
        self.shares_memory = shares_memory
        self.items: list[bytes] | None = [b"a", b"b"]
        self.withdrawn: list[HeldChunk] = []
        self.kept = Kept()
        me: Any = self
        self.fetching = Fetching(me, cast(Any, self.kept), me, me)

    def __contains__(self, inbox: str) -> bool:
        return self.shares_memory

    async def fetch(self, held: HeldChunk, place: Place) -> list[bytes] | None:
        return self.items

    async def withdraw(self, held: HeldChunk) -> None:
        held.unwanted = True
        self.withdrawn.append(held)


def held_chunk(place: Place | None = None, *, constants: int = 0) -> HeldChunk:
    head = ChunkHead("m", 1, 1, "f", "json", 0, 2, "i", None, 0.0)
    held = HeldChunk(head, [Lease("ack", 1)], b"", 0, 0, cast(Any, None), place)
    held.constants = [Constant(f"d{n}", 7) for n in range(constants)]
    return held


def test_a_chunk_begins_at_once_if_its_worker_can_read_everything() -> None:
    far, near = Elsewhere(), Elsewhere(shares_memory=True)
    assert not far.fetching.is_needed(held_chunk())
    assert far.fetching.is_needed(held_chunk(PLACE))
    assert near.fetching.is_needed(held_chunk(PLACE)), "its items are in no shared memory"
    assert not near.fetching.is_needed(held_chunk(SHARED))
    assert far.fetching.is_needed(held_chunk(SHARED))
    assert near.fetching.is_needed(held_chunk(constants=1))
    near.kept.here = True
    assert not near.fetching.is_needed(held_chunk(constants=1))


def test_what_is_fetched_is_not_needed_any_more() -> None:
    elsewhere, held = Elsewhere(), held_chunk(PLACE, constants=1)
    run(elsewhere.fetching.fetch([held]))
    assert held.items == [b"a", b"b"] and not elsewhere.withdrawn
    assert not elsewhere.fetching.is_needed(held)


@pytest.mark.parametrize("gone", ["items", "constants"])
def test_a_chunk_is_withdrawn_if_its_dispatcher_does_not_want_it_any_more(gone: str) -> None:
    elsewhere, held, other = Elsewhere(), held_chunk(PLACE, constants=1), held_chunk()
    if gone == "items":
        elsewhere.items = None
    else:
        elsewhere.kept.wanted = False
    run(elsewhere.fetching.fetch([held, other]))
    assert elsewhere.withdrawn == [held] and not held.items
    assert run(elsewhere.fetching.pass_on([other])) == [other]


@pytest.mark.parametrize("tries", [2, 20])
def test_a_chunk_goes_elsewhere_if_its_host_has_no_room_for_a_constant(tries: int) -> None:
    """After some tries it is computed, which makes the refusal an error of its items."""

    async def scenario() -> None:
        async with LoneAgent() as bench:
            constants, refused = bench.agent._chunks._constants, 0

            async def fetch(held: HeldChunk) -> bool:
                nonlocal refused
                refused += refused < tries
                held.refusal = "no room" if refused < tries else ""
                return True

            constants.fetch = fetch  # type: ignore[method-assign]
            constants.give = lambda worker, held: None  # type: ignore[method-assign]
            constants.are_here = lambda held: refused == tries or bool(held.refusal)  # type: ignore[method-assign]
            await bench.caller.send(1, kwargs=pack_kwargs(b"", {"table": Constant("d1", 7)}))
            await bench.caller.until(lambda: bench.caller.values)
            assert refused == min(tries, DELIVERIES)
            await bench.caller.until(bench.caller.done)

    run(scenario())
