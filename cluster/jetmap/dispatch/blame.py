"""Decide which items are to blame for lost workers and agents. No I/O and no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jetmap.wire.messages import Crash, ErrorRecord
from jetmap.wire.timing import GONE_AFTER, HELD, LOOK

from .flight import Flight, Piece

VANISHED_LIMIT = 2  # Agents that vanish with a chunk until it is cut into items.


@dataclass(frozen=True)
class Blame:
    """The consequences of a loss for the items that have no outcome.

    Attributes:
        error: Error of the item that is given up; None: none is.
        apart: Items that go into chunks of their own.
        alone: Whether each item goes into a chunk of its own.
    """

    error: ErrorRecord | None = None
    apart: range = range(0)
    alone: bool = False


class Crashes:
    """The workers that the items of one map have cost."""

    def __init__(self) -> None:
        self._cost: dict[int, int] = {}
        self._stretches: list[range] = []  # One item of each has cost one more.

    def add(self, item: int) -> int:
        """Count a worker that died in an item; return the item's workers so far.

        The item is also to blame for the stretch of items that it was in when a worker died.
        """
        before = len(self._stretches)
        self._stretches = [stretch for stretch in self._stretches if item not in stretch]
        cost = self._cost.get(item, 0) + 1 + before - len(self._stretches)
        self._cost[item] = cost
        return cost

    def add_stretch(self, stretch: range) -> None:
        """Note a worker that died in one of these items."""
        self._stretches.append(stretch)


def after_crash(piece: Piece, crash: Crash, crashes: Crashes, attempts: int) -> Blame:
    """Blame an item for the death of the worker that had this piece.

    Args:
        crashes: Workers that the items of the map have cost so far; this one is counted.
        attempts: Workers that one item may cost.
    """
    item = crash.item
    if item is None or item < piece.start:
        if crash.reason != "died" or piece.count != 1:
            # The guilty item is not known. After a death, each goes into a chunk of its own.
            return Blame(alone=crash.reason == "died")
        item = piece.start
    # (Agents of older releases name items behind the chunk, too.)
    apart = range(item, min(item + crash.items, piece.start + piece.count))
    if crash.reason == "timeout":
        return Blame(ErrorRecord(item, "timeout", "TimeoutError", crash.message), apart)
    if crash.reason == "died" and crash.items > 1:
        crashes.add_stretch(apart)
    elif crash.reason == "died":
        return Blame(_died_in(item, crash, crashes, attempts), apart)
    return Blame(apart=apart)


def _died_in(item: int, crash: Crash, crashes: Crashes, attempts: int) -> ErrorRecord | None:
    cost = crashes.add(item)
    if cost < attempts:
        return None
    detail = {
        "signal": crash.signal,
        "exit_code": crash.exit_code,
        "peak_memory": crash.peak_memory,
        "attempts": cost,
        "host": crash.host,
    }
    tried = f"{cost} attempt" + ("s" if cost > 1 else "")
    return ErrorRecord(item, "lost", "WorkerLost", f"{crash.message} ({tried})", None, detail)


def after_claim(flight: Flight, vanished: Mapping[str, float], attempts: int) -> Blame | None:
    """Blame the items of a chunk with which agents have vanished; None: too few have.

    When a second agent has vanished, the items become suspects. A suspect with which too many
    agents vanish is given up.

    Args:
        vanished: When each agent that fell silent without a goodbye was missed.
        attempts: Workers or agents that one item may cost.
    """
    gone, piece = losses(flight, vanished), flight.piece
    if not piece.suspect:
        # One of the items may be guilty, or none.
        return Blame(alone=True) if gone >= VANISHED_LIMIT else None
    if gone < max(VANISHED_LIMIT, attempts):
        return None
    text = f"{gone} agents vanished while they had this item, the last on host {flight.host}"
    detail = {"attempts": gone, "host": flight.host}
    return Blame(ErrorRecord(piece.start, "lost", "WorkerLost", text, None, detail))


def losses(flight: Flight, vanished: Mapping[str, float]) -> int:
    """Count the agents that have vanished with a chunk, or with the one that it was cut from."""
    claims = flight.claims
    gone = sum(agent in vanished and vanished[agent] - at < HELD for agent, at in claims.items())
    return flight.piece.losses + gone + _is_lost_unclaimed(flight, vanished)


def _is_lost_unclaimed(flight: Flight, vanished: Mapping[str, float]) -> bool:
    """Return whether an agent has vanished with a chunk that it never claimed.

    It may be missed only after the next agent has claimed the chunk, if this process was cut off
    meanwhile. What was lost before is claimed before it is begun.
    """
    if flight.reclaimed is None or flight.piece.losses:
        return False
    since, until = flight.first, flight.reclaimed + GONE_AFTER + LOOK
    missed = (at for agent, at in vanished.items() if agent not in flight.claims)
    return any(since <= at <= until for at in missed)
