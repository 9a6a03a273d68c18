"""Let small chunks share messages, without keeping them waiting for too long. No I/O, no clock."""

from __future__ import annotations

from .flight import Flight, Parcel, Piece
from .open_map import OpenMap

# Seconds of compute below which a chunk costs less than the message that carries it. While as many
# of those messages are out as there are cores, further small chunks wait, and then share one.
SMALL_SECONDS = 0.001
PARCEL_SECONDS = 0.005  # Seconds of compute that the chunks of one message take together, at most.
PARCEL_BYTES = 262_144  # Bytes of a message that small chunks share, at most.

Sent = tuple[OpenMap, Flight]


class Sharing:
    """Gather small chunks into parcels, about one for each core.

    Attributes:
        gathered: Chunks for the next parcels.
        landed: Number of parcels that have landed.
    """

    def __init__(self) -> None:
        self.landed = 0
        self._out = 0
        self.gathered: list[Sent] = []

    def has_idle_core(self, cores: int) -> bool:
        """Return whether a core may be without a parcel."""
        return self._out < cores

    def add(self, map: OpenMap, flight: Flight) -> None:
        """Gather a chunk for the next parcels."""
        self.gathered.append((map, flight))

    def take(self, cores: int) -> list[list[Sent]]:
        """Return the gathered chunks that are still out as parcels, which count as sent."""
        gathered, self.gathered = self.gathered, []
        if len(gathered) == 1:
            map, flight = gathered[0]
            return self._sent([gathered]) if flight.number in map.ledger.flights else []
        offers: dict[tuple[str, str], list[Sent]] = {}
        for map, flight in gathered:
            if flight.number in map.ledger.flights:
                batch = "" if map.spec.batch is None else map.spec.function
                offers.setdefault((flight.offer, batch), []).append((map, flight))
        return [
            parcel
            for (_, batch), offered in offers.items()
            for parcel in (self._batches(offered) if batch else self._parcels(offered, cores))
        ]

    def _parcels(self, chunks: list[Sent], cores: int) -> list[list[Sent]]:
        """Make a parcel for each core that has none, so that no core idles beside another's."""
        idle = max(1, cores - self._out)
        in_time = int(PARCEL_SECONDS / max(flight.seconds for _, flight in chunks))
        room = min(PARCEL_BYTES, *(map.room for map, _ in chunks))
        in_size = room // max(chunk_size(map, flight.piece) for map, flight in chunks)
        each = max(1, min(in_time, in_size, -(-len(chunks) // idle)))
        return self._sent([chunks[i : i + each] for i in range(0, len(chunks), each)])

    def _batches(self, chunks: list[Sent]) -> list[list[Sent]]:
        """Make a parcel of each batch: its items share a call, and no core is spared by others."""
        parcels: list[list[Sent]] = []
        items = size = 0
        for map, flight in chunks:
            assert map.spec.batch is not None
            items += flight.piece.count
            size += chunk_size(map, flight.piece)
            if not parcels or items > map.spec.batch.size or size > min(PARCEL_BYTES, map.room):
                parcels.append([])
                items, size = flight.piece.count, chunk_size(map, flight.piece)
            parcels[-1].append((map, flight))
        return self._sent(parcels)

    def _sent(self, parcels: list[list[Sent]]) -> list[list[Sent]]:
        for parcel in parcels:
            shared = Parcel(len(parcel))
            for _, flight in parcel:
                flight.parcel = shared
        self._out += len(parcels)
        return parcels

    def on_landed(self, parcel: Parcel) -> None:
        """Record that one of a parcel's chunks has ended."""
        parcel.left -= 1
        if not parcel.left:
            self.landed += 1
            self._out = max(0, self._out - 1)

    def release(self, landed: int) -> None:
        """Wait no longer for the parcels that are out, if none has landed since ``landed`` had."""
        if self.landed == landed:
            self._out = 0


def is_small(map: OpenMap, piece: Piece) -> bool:
    """Return whether a chunk may share a message with others."""
    if piece.lane != "express":
        return False
    if map.spec.batch is not None:
        if piece.apart or piece.count >= map.spec.batch.size:
            return False
    elif not 0 < piece.seconds <= SMALL_SECONDS:
        return False
    return 2 * chunk_size(map, piece) <= PARCEL_BYTES


def chunk_size(map: OpenMap, piece: Piece) -> int:
    """Bytes of a chunk, roughly; 200 are names and numbers."""
    return len(piece.items) + map.overhead + 200
