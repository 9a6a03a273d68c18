"""The choice of the next chunk, its map and its lane."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.dispatch.costs import Cutting
from jetmap.dispatch.flight import Flight, Piece, Quarantine
from jetmap.dispatch.ledger import Ledger
from jetmap.dispatch.map_spec import MapSpec
from jetmap.dispatch.memory import Memory
from jetmap.dispatch.open_map import OpenMap
from jetmap.dispatch.scheduler import Scheduler
from jetmap.dispatch.sharing import PARCEL_BYTES, PARCEL_SECONDS, SMALL_SECONDS, is_small
from jetmap.dispatch.sources import RawItems
from jetmap.wire import arrays
from jetmap.wire.messages import PART_BYTES, Final, Report

quick = examples(60)


class World:
    """A dispatcher's open maps and what is out of them; agents that answer in any order."""

    def __init__(self, cores: int, random: Random) -> None:
        self.cores, self.random = cores, random
        self.scheduler = Scheduler(Cutting())
        self.out: list[tuple[OpenMap, Flight]] = []
        self.maps: list[OpenMap] = []
        self.now = 0.0
        self.computed = Counter[OpenMap]()
        self.quarantine = Quarantine()

    def open(
        self,
        items: int | RawItems,
        function: str = "f",
        weight: float = 1.0,
        *,
        in_order: bool = False,
    ) -> OpenMap:
        map = OpenMap(
            str(len(self.maps)),
            MapSpec(function=function, format="json", weight=weight, in_order=in_order),
            RawItems([b"0"] * items, "json") if isinstance(items, int) else items,
            Ledger("json", 2, quarantine=self.quarantine),
            self.scheduler.cost(function),
            max_buffer=1 << 20,
            memory=Memory(1 << 30),
        )
        self.maps.append(map)
        self.scheduler.add(map)
        return map

    def send(self) -> list[Piece]:
        pieces = []
        while (turn := self.scheduler.next(self.cores)) is not None:
            map, piece = turn
            flight = map.ledger.send(piece, "offer", self.now)
            self.out.append((map, flight))
            pieces.append(piece)
            if is_small(map, piece):
                self.scheduler.sharing.add(map, flight)
                self.scheduler.sharing.take(self.cores)
        return pieces

    def answer(self, **each: float) -> None:
        """The result of some chunk. each: seconds of an item, by function."""
        map, flight = self.out.pop(self.random.randrange(len(self.out)))
        piece, seconds = flight.piece, each[map.spec.function] * flight.piece.count
        map.cost.learn(piece.count, seconds, 1)
        values = arrays.nulls(piece.count, "json")
        number, start, count = flight.number, piece.start, piece.count
        report = Report(map.id, number, 1, start, count, values, [], seconds, Final(flight.end))
        settlement = map.ledger.accept(report)
        assert settlement.ended is flight
        self.scheduler.on_landed(map, flight, seconds)
        self.scheduler.window.steer(0, self.cores)
        self.computed[map] += seconds  # type: ignore[assignment]
        if map.is_complete:
            self.scheduler.remove(map)

    def vanish(self) -> None:
        """Two agents have vanished with some chunk; a third one asks whether it is wanted."""
        map, flight = self.out.pop(self.random.randrange(len(self.out)))
        settlement = None
        for agent, vanished in ("a", {}), ("b", {}), ("c", {"a": self.now, "b": self.now}):
            settlement = map.ledger.claim(flight.number, agent, "h", self.now, vanished=vanished)
        assert settlement is not None and settlement.ended is flight
        self.scheduler.on_landed(map, flight, 0.0)
        if map.is_complete:
            self.scheduler.remove(map)


@quick
@given(
    st.lists(st.integers(1, 100), min_size=1, max_size=6),
    st.integers(1, 8),
    st.floats(1e-5, 0.5),
    st.randoms(use_true_random=False),
)
def test_every_map_comes_to_its_end(
    sizes: list[int], cores: int, each: float, random: Random
) -> None:
    world = World(cores, random)
    for size in sizes:
        world.open(size)
    for _ in range(20 * sum(sizes) + 100):
        known = world.scheduler.cost("f").is_known
        for piece in world.send():
            assert known or piece.count == 1, "nobody knows yet how long an item takes"
        main = [flight for _, flight in world.out if flight.piece.lane == "main"]
        assert len(main) == world.scheduler.window.in_flight <= world.scheduler.window.size
        if not world.out:
            break
        world.answer(f=each)

    assert all(map.is_complete and map.ledger.done == map.total for map in world.maps)
    assert not world.scheduler.has_waiting
    assert len(world.scheduler._maps) == 0


@quick
@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=6),
    st.integers(1, 4),
    st.floats(1e-5, 0.5),
    st.randoms(use_true_random=False),
)
def test_suspects_of_all_maps_have_their_turn(
    sizes: list[int], cores: int, each: float, random: Random
) -> None:
    """One is out at a time; maps that have sent everything else are not forgotten meanwhile."""
    world = World(cores, random)
    for size in sizes:
        world.open(size)
    for _ in range(20 * sum(sizes) + 100):
        world.send()
        assert sum(flight.piece.suspect for _, flight in world.out) <= 1
        if not world.out:
            break
        if random.random() < 0.4:
            world.vanish()
        else:
            world.answer(f=each)
    assert all(map.is_complete for map in world.maps)


@quick
@given(st.integers(1, 16), st.floats(1e-6, 5), st.integers(1, 5000))
def test_the_lane_for_short_maps_is_not_for_long_ones(cores: int, each: float, items: int) -> None:
    world = World(cores, Random(0))
    world.scheduler.cost("f").learn(1, each, 1)
    map = world.open(items)
    cutting = world.scheduler.cutting
    while world.out or world.send():
        world.send()
        world.answer(f=each)

    assert map.express_seconds <= 2 * cutting.seconds + each
    if map.express_chunks > 1:
        assert map.express_chunks <= cutting.seconds / cutting.least + 1
    # Items that are sent one by one, because their costs may differ, reach the limit of chunks.
    if items * each <= cutting.seconds and map.express_chunks < cutting.seconds / cutting.least:
        assert map.express_seconds == pytest.approx(items * each), "all of a short map goes there"
    assert (map.express_chunks > 0) == (each <= 10 * cutting.seconds)


def test_chunks_of_a_map_that_begins_in_order_go_by_one_lane_in_that_order() -> None:
    world = World(2, Random(0))
    world.scheduler.cost("f").learn(1, 1e-4, 1)
    map = world.open(1, in_order=True)
    starts = [piece.start for piece in world.send()]
    world.answer(f=1e-4)
    map = world.open(5000, in_order=True)
    while not map.is_complete:
        sent = world.send()
        assert {piece.lane for piece in sent} <= {"main"}
        starts += [piece.start for piece in sent]
        world.answer(f=1e-4)
    assert starts == [0, *sorted(starts[1:])]
    assert len(starts) > 4


def test_maps_share_seconds_by_weight_whatever_their_items_take() -> None:
    world = World(4, Random(5))
    heavy = [world.open(20_000, "heavy") for _ in range(3)]
    light = world.open(200_000, "light", weight=3.0)
    for _ in range(2000):
        world.send()
        world.answer(heavy=0.01, light=0.001)

    total = sum(world.computed.values())
    assert world.computed[light] == pytest.approx(total / 2, rel=0.1)
    for map in heavy:
        assert world.computed[map] == pytest.approx(total / 6, rel=0.1)


chunk_sizes = st.tuples(st.floats(1e-6, SMALL_SECONDS), st.integers(1, PARCEL_BYTES // 2))


@quick
@given(st.lists(chunk_sizes, min_size=1, max_size=60), st.integers(1, 16))
def test_small_chunks_share_messages_but_leave_no_core_idle(
    sizes: list[tuple[float, int]], cores: int
) -> None:
    world = World(cores, Random(0))
    chunks = []
    for number, (seconds, size) in enumerate(sizes):
        piece = Piece(0, 1, b"0" * size, lane="express", seconds=seconds)
        flight = Flight(number, piece, "offer", seconds, 0.0, 0.0)
        chunks.append((world.open(0), flight))
        chunks[-1][0].ledger.flights[number] = flight
        world.scheduler.sharing.add(*chunks[-1])
    parcels = world.scheduler.sharing.take(cores)

    assert [chunk for parcel in parcels for chunk in parcel] == chunks
    for parcel in parcels:
        flights = [flight for _, flight in parcel]
        if len(flights) > 1:
            assert sum(f.seconds for f in flights) <= PARCEL_SECONDS * 1.000001
            assert sum(len(f.piece.items) for f in flights) <= PARCEL_BYTES
        shared = flights[0].parcel
        assert shared is not None and shared.left == len(parcel)
        assert all(flight.parcel is shared for flight in flights)
    assert len(parcels) >= min(len(chunks), cores) / 2


def test_large_items_wait_while_others_take_the_memory() -> None:
    world = World(8, Random(1))
    size = 2 * PART_BYTES
    world.scheduler._max_open_bytes = 3 * size + 100
    world.scheduler.cost("f").learn(10, 1.0, 0)
    large = world.open(RawItems([b"1" * size] * 20, "json"))
    sent = world.send()
    # Up to the limit, and the one that passes it; each that ends makes room for one.
    assert len(sent) == 4 and all(piece.count == 1 for piece in sent)
    small = world.open(3)
    world.send()
    assert small.is_sent and not large.is_sent
    while world.out:
        world.answer(f=0.1)
        world.send()
        held = [f for _, f in world.out if len(f.piece.items) > PART_BYTES]
        assert len(held) <= 4
    assert large.is_complete and small.is_complete and world.scheduler._open_bytes == 0


def test_a_large_map_that_ends_early_frees_its_memory() -> None:
    world = World(8, Random(1))
    large = world.open(RawItems([b"1" * 2 * PART_BYTES] * 3, "json"))
    assert world.send() and world.scheduler._open_bytes
    world.scheduler.remove(large)
    assert world.scheduler._open_bytes == 0


@pytest.mark.parametrize(("seconds", "sizes"), [([0.002] * 8, {8}), ([0.001, 0.02] * 4, {1})])
def test_a_short_list_is_cut_by_a_guess_only_if_items_cost_alike(
    seconds: list[float], sizes: set[int]
) -> None:
    world = World(2, Random(1))
    for each in seconds:
        world.scheduler.cost("f").learn(1, each, 1)
    world.open(16)
    pieces = world.send()
    while world.out:
        world.answer(f=0.002)
        pieces += world.send()
    assert {piece.count for piece in pieces} == sizes
    assert sum(piece.count for piece in pieces) == 16


class RestOfItems(RawItems):
    """The rest of a list whose other items have their outcome already, as of a job that
    goes on elsewhere."""

    def __init__(self, total: int, seen: set[int]) -> None:
        super().__init__([b"0"] * total, "json")
        self._left = [n for n in range(total) if n not in seen]
        self.computed: list[int] = []

    @property
    def has_items(self) -> bool:
        return bool(self._left)

    def take(self, count: int, max_bytes: int) -> Piece | None:
        if not self._left:
            return None
        start = self._left[0]
        run = [n for offset, n in enumerate(self._left[:count]) if n == start + offset]
        self._left = self._left[len(run) :]
        self._next = start + len(run)
        self.computed += run
        return Piece(start, len(run), arrays.nulls(len(run), "json"))


@quick
@given(
    st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_a_job_that_goes_on_ends_when_all_the_rest_is_there(
    items: tuple[int, set[int]], cores: int, random: Random
) -> None:
    total, seen = items
    world = World(cores, random)
    rest = RestOfItems(total, seen)
    map = world.open(rest)
    for item in seen:
        map.ledger._seen.add(item, item + 1)
    assert map.is_complete == (len(seen) == total)
    while world.send() or world.out:
        assert not map.is_complete, "something is out"
        world.answer(f=0.2)
    assert map.is_complete and map.ledger.done == total
    assert sorted(rest.computed) == [n for n in range(total) if n not in seen]


class LateItems(RawItems):
    """A list whose items arrive after it was opened, as a job's do from their stream."""

    arrived = False

    @property
    def remaining(self) -> int:
        return len(self._elements) - self._next

    @property
    def has_items(self) -> bool:
        return self.arrived and self.remaining > 0

    def take(self, count: int, max_bytes: int) -> Piece | None:
        return super().take(count, max_bytes) if self.arrived else None


def test_a_small_map_whose_items_come_later_is_not_forgotten() -> None:
    world = World(2, Random(1))
    world.scheduler.cost("f").learn(10, 1e-4, 0)
    late = LateItems([b"0"] * 3, "json")
    late.total = None  # type: ignore[assignment]  # Told when all are there.
    world.open(late)
    assert world.send() == []
    late.arrived, late.total = True, 3
    assert sum(piece.count for piece in world.send()) == 3


def test_what_is_out_of_a_map_leaves_no_more_unread_than_twice_what_its_reader_may() -> None:
    world = World(cores=2, random=Random(0))
    world.scheduler.cost("f").learn(10, 0.1, 10 * 300_000)  # Values of 300 kB; 1 MiB may be unread.
    world.scheduler.cost("large").learn(2, 0.02, 2 * 8_000_000)
    world.scheduler.window.size = 100
    map, large = world.open(1000), world.open(1000, "large")
    world.send()
    assert len(map.ledger.flights) >= 4 and (map.taken - 1) * 300_000 < 2 << 20
    assert len(large.ledger.flights) == 4  # Each core has one and the next one.
