"""Choose the next chunk to send: its map, its size, its lane. No I/O and no clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from jetmap.wire.messages import PART_BYTES, Lane

from .costs import Cost, Cutting
from .express import Express
from .fairness import DeficitRoundRobin
from .flight import Flight, Piece
from .open_map import OpenMap
from .sharing import SMALL_SECONDS, Sharing
from .window import Window

# Chunk durations that one item may take on the lane for short maps.
EXPRESS_ITEMS = 10

# Chunks of the usual duration that follow when long ones were ended early: who came may come again.
USUAL_CHUNKS = 16

# Items a core in a list that is too short to be cut by a guess, unless the function's items have
# cost alike. If some are dear, the order in which they begin decides when the map ends.
FEW_ITEMS = 16


Turn = tuple[OpenMap, Piece]  # A map, and what is sent of it next.


class SharedItems(Protocol):
    """The memory shared with workers, as ``neighbours.py`` describes it."""

    @property
    def is_crowded(self) -> bool: ...
    def free(self, flight: Flight) -> None: ...


class Scheduler:
    """Choose chunks among the open maps of one dispatcher.

    Args:
        max_open_bytes: Bytes of large items that are out, above which no more of them are cut.

    Attributes:
        shared: The memory that has large items; None: none.
        is_sole: Whether no other dispatcher uses the pool, as far as known.
        hurried: Maps whose long chunks are to be ended early, each with the number of its last.
    """

    def __init__(self, cutting: Cutting, max_open_bytes: int = 1 << 30) -> None:
        self.cutting = cutting  # Fitted to the pool, as that changes.
        self.express_seconds = cutting.seconds  # Compute of a map that the express lane takes.
        self._open_bytes = 0  # Of the large items that are out.
        self._max_open_bytes = max_open_bytes
        self.shared: SharedItems | None = None
        self.is_sole = True
        self.hurried: list[tuple[OpenMap, int]] = []
        self._long: OpenMap | None = None  # The map that had long chunks last.
        self._may_hurry = False  # Whether some may be out that were not asked to end early.
        self._usual = 0  # Chunks that are to be cut before there are long ones again.
        self.window = Window()
        self.sharing = Sharing()
        self._express = Express(cutting.seconds, cutting.least)
        self._maps: DeficitRoundRobin[OpenMap] = DeficitRoundRobin(cutting.seconds)
        self._small: dict[OpenMap, None] = {}  # In order of arrival, as the newcomers.
        self._newcomers: dict[OpenMap, None] = {}
        self._costs: dict[str, Cost] = {}
        self._weights: dict[float, int] = {}
        self._busy: set[OpenMap] = set()  # Maps that have chunks out.
        self.emptied: list[OpenMap] = []  # Maps whose source turned out to have no items left.

    def cost(self, function: str) -> Cost:
        """Return what is known of a function's cost; it is remembered between maps."""
        cost = self._costs.get(function)
        if cost is None:
            cost = self._costs[function] = Cost()
        return cost

    @property
    def costs(self) -> Mapping[str, Cost]:
        """The costs of all functions so far."""
        return self._costs

    @property
    def weight(self) -> float:
        """Weight of all open maps beside those of other dispatchers: the largest among them."""
        return max(self._weights, default=1.0)

    def add(self, map: OpenMap) -> None:
        self.hurry()
        weight = map.spec.weight
        self._weights[weight] = self._weights.get(weight, 0) + 1
        is_free = map.limit is None and map.gate is None and not map.spec.in_order
        if is_free and self._is_small(map):
            self._small[map] = None
        else:
            self._newcomers[map] = None

    def remove(self, map: OpenMap) -> None:
        count = self._weights.pop(map.spec.weight, 0)
        if count > 1:
            self._weights[map.spec.weight] = count - 1
        self._small.pop(map, None)
        self._newcomers.pop(map, None)
        self._express.remove(map)
        self._maps.remove(map)
        map.ledger.close()
        self._busy.discard(map)
        if map is self._long:
            self._long, self._may_hurry = None, False
        for flight in map.ledger.flights.values():
            self._landed(map, flight)

    def hurry(self) -> None:
        """End long chunks early: somebody else comes, here or at another dispatcher."""
        if self._long is None:
            return
        self._usual = USUAL_CHUNKS
        if not self._may_hurry:
            return
        self._may_hurry = False
        ledger = self._long.ledger
        flights = ledger.flights.values()
        if any(flight.piece.is_long and not flight.is_hurried for flight in flights):
            for flight in flights:  # Agents end short ones, too.
                flight.is_hurried = True
            self.hurried.append((self._long, ledger.chunks))

    def next(self, cores: int) -> Turn | None:
        """Return the next chunk to send, which counts as sent; None until something comes back.

        A piece with an error is one item that cannot travel.
        """
        if not (self._small or self._newcomers or self._maps or self._express.has_waiting):
            return None
        if self.window.is_fresh:
            self.window.open(cores)
        turn = self._next_small(cores) or self._next_newcomer(cores)
        while turn is None and self.window.has_room:
            map = self._maps.next(partial(self._can_send, cores=cores))
            if map is None:
                return None
            turn = self._cut(map, "main", cores)
        if turn is None and self._may_hurry and len(self._maps) > 1:
            self._hurry_for_waiting(cores)
        return turn

    def _hurry_for_waiting(self, cores: int) -> None:
        """End long chunks early if an old map waits for room among the chunks that are out."""
        if any(map is not self._long and self._can_send(map, cores) for map in self._maps):
            self.hurry()

    @property
    def has_waiting(self) -> bool:
        """Return whether a small map waits for a message to share."""
        return bool(self._small)

    def _next_small(self, cores: int) -> Turn | None:
        """Return the next map that is one small chunk, unless each core has a message of those."""
        while self._small and self.sharing.has_idle_core(cores):
            map = next(iter(self._small))
            del self._small[map]
            turn = self._cut(map, "express", cores)
            if map.source.has_items or map.source.total is None:
                self._newcomers[map] = None  # The map is more than one chunk, or not all read.
            if turn is not None:
                return turn
        return None

    def _next_newcomer(self, cores: int) -> Turn | None:
        for map in list(self._newcomers):
            if (turn := self._next_of(map, cores)) is not None:
                return turn
        while (released := self._express.release(cores)) is not None:
            self._newcomers[released] = None
            if (turn := self._next_of(released, cores, is_released=True)) is not None:
                return turn
        return None

    def _next_of(self, map: OpenMap, cores: int, *, is_released: bool = False) -> Turn | None:
        """Return the next chunk of a newcomer; or move it to where it is served from now on."""
        if not self._may_use_express(map, cores):
            del self._newcomers[map]
            self._maps.add(map, map.spec.weight)
        elif map.is_sent:
            del self._newcomers[map]  # ``requeue`` adds it when items return.
        elif not is_released and self._express.is_full(map.spec.function, cores):
            del self._newcomers[map]
            self._express.wait(map)
        elif self._can_send(map, cores):
            return self._cut(map, "express", cores)
        return None

    def on_landed(self, map: OpenMap, flight: Flight, seconds: float) -> None:
        """Record that a chunk ended after ``seconds`` of compute."""
        self._landed(map, flight)
        if not map.ledger.flights:
            self._busy.discard(map)
        if map.ledger.has_returned:
            self.requeue(map)
        if flight.is_hurried:
            self._maps.refund(map, flight.seconds - seconds)
        else:
            self._maps.charge(map, seconds - flight.seconds)

    def on_idle(self, cores: int, takes: Callable[[OpenMap], bool]) -> None:
        """Respond to idle cores: let as many chunks out for them, if a map has some.

        takes: whether these cores run a map's function.
        """
        if self.window.in_flight + cores <= self.window.size:
            return
        if any(takes(map) and map.has_work for map in self._maps):
            self.window.on_idle(cores)

    def on_limited(self, map: OpenMap) -> None:
        """Record that a map has a limit or a gate now: small maps are sent without asking."""
        if map in self._small:
            del self._small[map]
            self._newcomers[map] = None

    def requeue(self, map: OpenMap) -> None:
        """Give a map turns again if some of its items have returned, to be sent again."""
        if not map.ledger.has_returned or map in self._newcomers or map in self._maps:
            return
        if map not in self._express:
            self._newcomers[map] = None

    def _is_small(self, map: OpenMap) -> bool:
        remaining, cost = map.source.remaining, map.cost
        if map.spec.batch is not None:
            is_dear = cost.seconds > EXPRESS_ITEMS * self.express_seconds
            return remaining is not None and 0 < remaining < map.spec.batch.size and not is_dear
        return remaining is not None and 0 < remaining * cost.seconds <= SMALL_SECONDS

    def _landed(self, map: OpenMap, flight: Flight) -> None:
        if map.gate is not None:
            map.gate.on_landed()
        if flight.region is not None and self.shared is not None:
            self.shared.free(flight)
        if len(flight.piece.items) > PART_BYTES:
            self._open_bytes -= len(flight.piece.items)
        if flight.piece.lane == "main":
            self.window.on_ended()
            return
        self._express.on_landed(map, flight.piece)
        if flight.parcel is not None:
            self.sharing.on_landed(flight.parcel)

    def _can_send(self, map: OpenMap, cores: int) -> bool:
        if not map.take_turn():
            return False
        if map.is_large and (self._open_bytes > self._max_open_bytes or self._is_crowded):
            return False
        out = len(map.ledger.flights)
        # While nothing is known of a function, single items find out: one for each core.
        if not map.pace.is_known:
            return out < cores
        # Each core has a chunk and the next one, however large their values.
        return out < 2 * cores or not map.is_far_ahead

    @property
    def _is_crowded(self) -> bool:
        return self.shared is not None and self.shared.is_crowded

    def _may_use_express(self, map: OpenMap, cores: int) -> bool:
        """Return whether a map may use the lane for short maps: its first chunks, up to one chunk
        duration.

        Chunks that are short because their items are large count as the shortest there are: this
        lane has no window that would limit them.
        """
        if map.spec.in_order:
            return False
        if map.pace.is_known:
            if map.pace.seconds > EXPRESS_ITEMS * self.express_seconds:
                return False
            used = max(map.express_seconds, map.express_chunks * self.cutting.least)
            return not map.express_chunks or used < self.express_seconds
        return map.express_chunks < cores

    def _may_be_long(self, map: OpenMap) -> bool:
        """Return whether a map has the pool to itself, and its caller waits for all of it.

        Agents do not end batches early.
        """
        if self._usual or not self.is_sole or not map.spec.whole or map.spec.batch is not None:
            return False
        return not self._busy or (len(self._busy) == 1 and map in self._busy)

    def _count(self, map: OpenMap, cores: int, *, may_be_long: bool) -> int:
        """Number of items of the next chunk."""
        rest = map.rest
        if rest == 1:
            return 1
        # The map's share of the cores, beside the others that are in progress.
        busy = len(self._busy)
        share = cores / busy if busy > 1 else cores
        if map.spec.batch is not None:
            return self.cutting.count(map.pace, rest, share, map.spec.batch.size)
        is_first = map.spec.early and not map.taken  # It is short, and no part of a round.
        count = None
        if rest is not None and rest > 1 and not is_first:
            count = self.cutting.round_count(
                map.rounds,
                map.pace,
                rest,
                share,
                alone=busy <= 1,
                sole=may_be_long,
            )
        if count is None:
            count = self.cutting.count(map.pace, rest, share)
        if is_first:
            count = min(count, self.cutting.first(map.pace))
        if rest is None or not count < rest <= FEW_ITEMS * share:
            return count
        return count if map.pace.is_sure or map.cost.is_steady else 1

    def _cut(self, map: OpenMap, lane: Lane, cores: int) -> Turn | None:
        """Take the next items of a map; None if it turns out to have none."""
        may_be_long = map.pace.is_sure and self._may_be_long(map)
        count = self._count(map, cores, may_be_long=may_be_long)
        if map.ledger.has_pieces:
            piece = map.ledger.next_piece(count)
        else:
            most = min(self.cutting.max_bytes, map.room)
            if map.two_ended is not None and map.taken and (last := _last(map, count, most)):
                piece = last
                map.taken_last = piece.count
            elif (taken := map.source.take(count, most)) is not None:
                piece = taken
                map.taken = piece.start + piece.count
            else:
                self.emptied.append(map)
                return None
            if piece.error is not None:
                return map, piece
            map.cost.cut(piece.count, len(piece.items))
        self._busy.add(map)
        if map.gate is not None:
            map.gate.out += 1
        map.is_large = len(piece.items) > PART_BYTES
        if map.is_large:
            self._open_bytes += len(piece.items)
        if self._long is not None and map is not self._long:
            if self._long.ledger.flights:
                self.hurry()  # This may be an old map that has new items.
            else:  # It is idle.
                self._long, self._may_hurry = None, False
        piece.lane = lane
        piece.seconds = seconds = piece.count * map.pace.seconds
        piece.is_long = may_be_long and self.cutting.is_long(piece.count, seconds)
        if piece.is_long:
            self._long, self._may_hurry = map, True
        elif self._usual:
            self._usual -= 1
        if lane == "express":
            map.express_chunks += 1
            map.express_seconds += seconds
            self._express.on_sent(map, piece)
        else:
            self.window.on_sent()
            self._maps.charge(map, seconds)
        return map, piece


def _last(map: OpenMap, count: int, max_bytes: int) -> Piece | None:
    """Take a map's last items, as its second chunk.

    An item that takes long and begins last delays the end by all that it takes. Lists are often
    sorted, so that their dearest items are the last or the first ones.
    """
    source, map.two_ended = map.two_ended, None
    return None if source is None else source.take_last(count, max_bytes)
