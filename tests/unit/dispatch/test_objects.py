"""Objects leave once, in order, in pieces that fit, however they are asked for."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.dispatch.objects import AsyncObjects, Objects
from jetmap.wire.scattered import LEAST, Scattered
from waiting import PATIENCE, turns, wait_until

quick = examples(100)
MAX_ITEM = 500
TOO_LARGE = "x" * 600
BAD = object()

fine = st.integers(-1000, 1000) | st.text(max_size=150)
counts = st.lists(st.integers(1, 40), min_size=1, max_size=60)


def encode(items: list[Any]) -> bytes:
    return msgspec.json.encode(items)


class Feeding(Exception):
    """A test's own."""


def drain(source: Objects, counts: list[int], max_bytes: int) -> list[Any]:
    """Every item, or the kind of its error, taken by these counts again and again."""
    seen: list[Any] = []
    for number in range(10_000):
        count = counts[number % len(counts)]
        if (taken := source.take(count, max_bytes)) is None:
            break
        assert 1 <= taken.count <= count
        if taken.error is not None:
            assert taken.count == 1 and taken.error.kind == "unencodable"
            seen.append(taken.error.type)
        else:
            fits = max_bytes if taken.count > 1 else max(max_bytes, MAX_ITEM)
            assert len(taken.items) <= fits
            items = msgspec.json.decode(taken.items)
            assert len(items) == taken.count
            seen += items
    return seen


@quick
@given(
    st.lists(fine | st.sampled_from([BAD, TOO_LARGE]), max_size=60),
    counts,
    st.integers(2, 400),
    st.sampled_from([list, tuple, iter]),
)
def test_objects_leave_once_in_order_and_bad_ones_alone(
    items: list[Any], counts: list[int], max_bytes: int, kind: Callable[[list[Any]], Any]
) -> None:
    source = Objects(kind(items), encode, keep=True, max_item=MAX_ITEM)
    assert source.total == (None if kind is iter else len(items))
    seen = drain(source, counts, max_bytes)

    names = {id(BAD): "TypeError", id(TOO_LARGE): "ValueError"}
    assert seen == [names.get(id(item), item) for item in items]
    assert source.error is None and not source.has_items
    assert source.total == len(items)
    assert source.remaining == 0
    # And each can be had back, once.
    assert all(source.give_back(index) is item for index, item in enumerate(items))
    with pytest.raises(KeyError):
        source.give_back(0)


@quick
@given(st.lists(fine, max_size=30), counts)
def test_an_iterable_that_raises_ends_with_its_error(items: list[Any], counts: list[int]) -> None:
    def generate() -> Iterator[Any]:
        yield from items
        raise Feeding

    source = Objects(generate(), encode, keep=False, max_item=MAX_ITEM)
    seen = drain(source, counts, 1000)

    assert isinstance(source.error, Feeding)
    assert seen == items
    assert not source.has_items


@quick
@given(st.integers(0, 20), st.integers(0, 20), counts)
def test_a_length_that_is_wrong_loses_nothing(real: int, said: int, counts: list[int]) -> None:
    class Lying:
        def __iter__(self) -> Iterator[int]:
            return iter(range(real))

        def __len__(self) -> int:
            return said

    source = Objects(Lying(), encode, keep=False, max_item=MAX_ITEM)
    seen = drain(source, counts, 1000) if source.has_items else []

    assert seen == list(range(real))
    assert not source.has_items
    assert source.total == len(seen)
    assert source.remaining == 0


def test_nothing_is_taken_from_an_iterable_before_it_is_asked_for() -> None:
    given_out = []

    def generate() -> Iterator[int]:
        for number in range(10**9):
            given_out.append(number)
            yield number

    source = Objects(generate(), encode, keep=False, max_item=MAX_ITEM)
    assert not given_out
    source.take(5, 1000)
    assert len(given_out) == 5
    source.take(1000, 100)
    assert len(given_out) <= 1010


def test_many_bad_items_cost_no_more_than_they_are() -> None:
    encoded = 0

    def counting(items: list[Any]) -> bytes:
        nonlocal encoded
        encoded += len(items)
        return encode(items)

    source = Objects([BAD] * 3000, counting, keep=False, max_item=MAX_ITEM)
    assert drain(source, [3000], 1 << 18) == ["TypeError"] * 3000
    assert encoded < 20_000


class Numbers:
    """An async generator that says how it fared."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.count = count
        self.error = error
        self.given_out = 0
        self.begun = self.closed = False

    async def __aiter__(self) -> AsyncIterator[int]:
        self.begun = True
        try:
            for number in range(self.count):
                if number % 3 == 0:
                    await turns()
                self.given_out += 1
                yield number
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True


async def drain_async(source: AsyncObjects, count: int) -> list[Any]:
    """Take items as a dispatcher does: whenever the source has some, until it ends."""
    woken = asyncio.Event()
    source.wake = woken.set
    seen: list[Any] = []
    async with asyncio.timeout(PATIENCE):
        while source.has_items or (source.total is None and source.error is None):
            if (taken := source.take(count, 60)) is None:
                await woken.wait()
                woken.clear()
            else:
                seen += msgspec.json.decode(taken.items)
    return seen


@pytest.mark.anyio
@pytest.mark.parametrize("read_ahead", [1, 2, 7, 100])
@pytest.mark.parametrize("count", [1, 5, 50])
async def test_async_iterables_are_read_whole_and_never_far_ahead(
    read_ahead: int, count: int
) -> None:
    numbers = Numbers(100)
    source = AsyncObjects(numbers, encode, keep=True, max_item=MAX_ITEM, read_ahead=read_ahead)
    assert source.total is None and source.remaining is None
    await wait_until(lambda: numbers.given_out >= min(read_ahead, 100), "reading ahead")
    await turns(20)
    assert numbers.given_out <= read_ahead

    assert await drain_async(source, count) == list(range(100))
    assert source.total == 100 and numbers.closed
    assert [source.give_back(index) for index in range(100)] == list(range(100))
    await source.aclose()


@pytest.mark.anyio
async def test_an_async_iterable_that_raises_gives_what_came_before() -> None:
    error = Feeding()
    source = AsyncObjects(Numbers(10, error), encode, keep=False, max_item=MAX_ITEM)
    await wait_until(lambda: source.error is not None, "the error")

    assert source.error is error
    assert await drain_async(source, 3) == list(range(10))
    await source.aclose()


@pytest.mark.anyio
async def test_closing_early_lets_the_iterable_clean_up() -> None:
    for steps in (0, 1, 5, 50):
        numbers = Numbers(10**6)
        source = AsyncObjects(numbers, encode, keep=False, max_item=MAX_ITEM, read_ahead=10)
        await turns(steps)
        await source.aclose()
        await source.aclose()
        assert numbers.closed == numbers.begun


class Broken:
    """Has an iterator that cannot be made, or not be closed."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __aiter__(self) -> Broken:
        if self.where == "aiter":
            raise Feeding
        return self

    async def __anext__(self) -> int:
        raise StopAsyncIteration

    async def aclose(self) -> None:
        raise Feeding


@pytest.mark.anyio
@pytest.mark.parametrize("where", ["aiter", "aclose"])
async def test_an_iterator_that_breaks_ends_the_map_too(where: str) -> None:
    source = AsyncObjects(Broken(where), encode, keep=False, max_item=MAX_ITEM)
    assert await drain_async(source, 3) == []
    assert isinstance(source.error, Feeding)
    await source.aclose()
    del source
    gc.collect()


class Stop(BaseException):
    """An error like those that test runners and other frameworks raise through everything."""


@pytest.mark.parametrize("error", [Stop(), SystemExit(3), asyncio.CancelledError()])
def test_an_iterable_that_raises_anything_ends_with_it(error: BaseException) -> None:
    def generate() -> Iterator[int]:
        yield from range(5)
        raise error

    source = Objects(generate(), encode, keep=False, max_item=MAX_ITEM)
    assert drain(source, [3], 1000) == list(range(5))
    assert source.error is error and not source.has_items


@pytest.mark.anyio
async def test_an_async_iterable_whose_own_work_is_cancelled_ends_with_that() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        work = asyncio.ensure_future(asyncio.sleep(1000))
        work.cancel()
        await work
        yield 2

    source = AsyncObjects(items(), encode, keep=False, max_item=MAX_ITEM)
    assert await drain_async(source, 3) == [1]
    assert isinstance(source.error, asyncio.CancelledError)
    await source.aclose()


@quick
@given(
    st.lists(st.sampled_from([b"", b"x" * LEAST, b"y" * 3 * LEAST, 7]), max_size=40),
    counts,
    st.integers(1, 6 * LEAST),
)
def test_large_bytes_leave_scattered_as_they_would_encoded(
    items: list[Any], counts: list[int], max_bytes: int
) -> None:
    def pieces(*, scatters: bool) -> list[tuple[int, int, bytes]]:
        most = 4 * LEAST
        source = Objects(
            items, msgspec.msgpack.encode, keep=False, max_item=most, scatters=scatters
        )
        found = []
        for count in itertools.cycle(counts):
            if (piece := source.take(count, max_bytes)) is None:
                return found
            assert len(piece.items) == len(piece.encoded)
            found.append((piece.start, piece.count, piece.encoded))
        raise AssertionError

    assert pieces(scatters=True) == pieces(scatters=False)


def test_only_large_bytes_are_scattered() -> None:
    source = Objects(
        [b"x" * LEAST, b"y"], msgspec.msgpack.encode, keep=False, max_item=9999, scatters=True
    )
    kinds = [type(piece.items) for _ in range(2) if (piece := source.take(1, 9999)) is not None]
    assert kinds == [Scattered, bytes]
