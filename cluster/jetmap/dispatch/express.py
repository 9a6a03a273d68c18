"""The chunks that a dispatcher keeps out on the lane for short maps. No I/O, no clock."""

from __future__ import annotations

import msgspec

from .flight import Piece
from .open_map import OpenMap

# Seconds of compute for each core, and chunks, that one function has out on this lane before its
# further maps wait here. They last while the dispatcher is busy with something else.
AHEAD_SECONDS = 0.2
AHEAD_CHUNKS = 4
REFILL = 0.5  # Share of that at which further maps follow, several at once.


class _Out(msgspec.Struct):
    """The chunks of one function that are out."""

    chunks: int = 0
    seconds: float = 0.0


class Express:
    """Keep maps waiting here rather than at the broker.

    The first chunks of a map ask no window, so that a map of one item waits only for the next core
    that comes free. A thousand such maps would fill the broker's queue, for which nobody knows
    whether a chunk waits there or is lost, and in which other dispatchers' short maps wait behind
    them. So a function has enough of them out for its cores, and its other maps wait in the order
    in which they came. Functions do not wait for each other: other agents may run them.

    Args:
        seconds: Compute of a chunk about whose cost nothing is known.
        least: Compute that a chunk counts for, at least.
    """

    def __init__(self, seconds: float, least: float) -> None:
        self._seconds = seconds
        self._least = least
        self._out: dict[str, _Out] = {}
        self._waiting: dict[str, dict[OpenMap, None]] = {}
        self._refilled = ""  # The function whose maps follow now.

    def __contains__(self, map: OpenMap) -> bool:
        return map in self._waiting.get(map.spec.function, ())

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)

    def is_full(self, function: str, cores: int) -> bool:
        """Return whether a map that comes now has to wait."""
        return function in self._waiting or not self._has_room(function, cores)

    def wait(self, map: OpenMap) -> None:
        """Keep a map until ``release`` returns it."""
        self._waiting.setdefault(map.spec.function, {})[map] = None

    def release(self, cores: int) -> OpenMap | None:
        """Return the next map whose function has room, which waits no longer; None: none has."""
        for function, waiting in self._waiting.items():
            share = 1.0 if function == self._refilled else REFILL
            if self._has_room(function, cores * share):
                self._refilled = function
                map = next(iter(waiting))
                self.remove(map)
                return map
        self._refilled = ""
        return None

    def remove(self, map: OpenMap) -> None:
        """Let a map wait no longer."""
        waiting = self._waiting.get(map.spec.function)
        if waiting is not None:
            waiting.pop(map, None)
            if not waiting:
                del self._waiting[map.spec.function]

    def on_sent(self, map: OpenMap, piece: Piece) -> None:
        out = self._out.get(map.spec.function)
        if out is None:
            out = self._out[map.spec.function] = _Out()
        out.chunks += 1
        out.seconds += self._cost(piece)

    def on_landed(self, map: OpenMap, piece: Piece) -> None:
        out = self._out[map.spec.function]
        out.chunks -= 1
        out.seconds -= self._cost(piece)
        if not out.chunks:
            del self._out[map.spec.function]

    def _has_room(self, function: str, cores: float) -> bool:
        out = self._out.get(function)
        if out is None:
            return True
        return out.chunks < AHEAD_CHUNKS * cores or out.seconds < AHEAD_SECONDS * cores

    def _cost(self, piece: Piece) -> float:
        return max(self._least, piece.seconds) if piece.seconds else self._seconds
