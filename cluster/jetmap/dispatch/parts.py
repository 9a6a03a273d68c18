"""Large items and values of open maps, which travel in parts beside their messages. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field

from jetmap.wire.messages import PartRequest, Report

from .maps import OpenMaps
from .memory import Memory

UNWANTED = b"-"  # Answer to a part of values whose chunk has ended.

# The values of one report: its agent, map, chunk, attempt and first item.
ReportName = tuple[str, str, int, int, int]


@dataclass
class _Values:
    """The parts of one report's values, by offset."""

    parts: dict[int, bytes] = field(default_factory=dict)
    size: int = 0


class ServedParts:
    """Give agents the items of chunks that are out, and gather the values that they push.

    The items are those of the flights, and are there until these end. Two agents may compute the
    same chunk, with different values; so the agent is part of a report's name.
    """

    def __init__(self, maps: OpenMaps, memory: Memory) -> None:
        self._maps = maps
        self._memory = memory
        self._values: dict[ReportName, _Values] = {}

    def items(self, request: PartRequest) -> memoryview:
        """Return a part of a chunk's items; empty if it has ended, or has other items by now."""
        for _, flight in self._maps.out([(request.map, request.number)]):
            items = flight.piece.encoded
            if len(items) == request.size:
                return memoryview(items)[request.offset : request.offset + request.length]
        return memoryview(b"")

    def add(self, name: ReportName, offset: int, data: bytes) -> bool:
        """Keep a part of a report's values; return whether its chunk is still out."""
        if not self._maps.out([name[1:3]]):
            return False
        values = self._values.setdefault(name, _Values())
        grown = len(data) - len(values.parts.get(offset, b""))
        values.parts[offset] = data
        values.size += grown
        self._memory.add_unread(grown)
        return True

    def complete(self, agent: str, report: Report) -> bool:
        """Put the values that came before a report into it; return whether all have come.

        They have unless the report is a repetition, or came when its chunk had ended.
        """
        name = agent, report.map, report.number, report.attempt, report.start
        values = self._values.get(name)
        if values is None:
            return False
        found, at = [], 0
        while (part := values.parts.get(at)) is not None:
            found.append(part)
            at += len(part)
        if at != report.size:
            return False
        report.values = b"".join(found)
        self._drop(name)
        return True

    def drop_ended(self) -> None:
        """Drop the values of chunks that have ended without them."""
        for name in list(self._values):
            if not self._maps.out([name[1:3]]):
                self._drop(name)

    def _drop(self, name: ReportName) -> None:
        self._memory.read(self._values.pop(name).size)
