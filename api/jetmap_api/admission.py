"""Limit what one gateway takes in at once: maps, items, bytes in memory and on disk.

Plain counters. A request takes its place, and the memory for its body, before the body is read. A
request that does not fit is refused at once, with the time to try again. Results that do not fit
into memory go to a file instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jetmap.dispatch.memory import Memory
from jetmap.dispatch.sources import ELEMENT_BYTES
from jetmap.settings import LimitSettings

from .problems import RETRY_AFTER, Problem, over_limit

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster

# Bytes reserved for a body that is passed on while it arrives (JSON lines, a job's): the items read
# last, and those that wait to be taken.
PASSING_BYTES = 2 << 20


class Admission:
    """The counters of a gateway, and their limits.

    arriving: requests whose map is not open yet. items: in the lists of open requests. spooled:
    bytes in temporary files.
    """

    __slots__ = ("arriving", "items", "limits", "memory_budget", "spooled")

    def __init__(self, limits: LimitSettings) -> None:
        self.limits = limits
        self.memory_budget = limits.memory_budget()
        self.arriving = 0
        self.items = 0
        self.spooled = 0

    def reserve(self, cluster: Cluster) -> Reservation:
        """Make the reservation of a new request, which is empty at first. ``close`` it."""
        return Reservation(self, cluster.memory)


class Reservation:
    """The memory, items, files and place of one request."""

    __slots__ = ("_admission", "_arriving", "_held", "_left", "_memory", "items", "size", "spooled")

    def __init__(self, admission: Admission, memory: Memory) -> None:
        self.size = 0
        self.items = 0
        self.spooled = 0
        self._arriving = 0
        self._held = 0  # Bytes of a large item of a passing body.
        self._left = 0  # Bytes that a large body has left to its values.
        self._admission = admission
        self._memory = memory

    def enter(self, open_maps: int) -> None:
        """Take the place of a map, until ``leave``. Raises Problem: 429."""
        admission = self._admission
        taken = open_maps + admission.arriving
        limit = admission.limits.max_open_maps
        if taken >= limit:
            raise Problem(
                429,
                "too-many-maps",
                "Too many maps are open",
                f"{taken} maps are open or arriving, which is the limit (setting max_open_maps); "
                "try again when some have ended",
                headers=(RETRY_AFTER,),
                setting="max_open_maps",
                limit=limit,
            )
        admission.arriving += 1
        self._arriving = 1

    def leave(self) -> None:
        """Give the place back: the map is being opened, and counts as open."""
        self._admission.arriving -= self._arriving
        self._arriving = 0

    def add(self, size: int) -> None:
        """Add bytes. Raises Problem: 503, or 413 if all of the memory is too little."""
        if not self.take(size):
            raise self._full(size)

    def take(self, size: int) -> bool:
        """Add bytes if there is room."""
        if self._memory.used + size > self._admission.memory_budget:
            return False
        self._memory.used += size
        self.size += size
        return True

    def force(self, size: int) -> None:
        """Add bytes, even without room."""
        self._memory.used += size
        self.size += size

    def hold(self, size: int) -> None:
        """Count an item of a passing body that has arrived in part, as far as it is large.

        It takes twice its bytes, because it is copied. Raises Problem: 503 or 413.
        """
        beyond = max(0, 2 * size - PASSING_BYTES)
        if beyond > self._held:
            self.add(beyond - self._held)
        else:
            self.give(self._held - beyond)
        self._held = beyond

    def give(self, size: int) -> None:
        """Give bytes back."""
        self._memory.used -= size
        self.size -= size

    def leave_to_values(self, size: int) -> None:
        """Give back bytes that a body took while it was read: values of its items may have them."""
        self.give(size)
        self._left += size

    def take_left(self, size: int) -> bool:
        """Add bytes of values that the body has left, while half of the memory stays free."""
        room = self._admission.memory_budget // 2
        if size > self._left or self._memory.used + size > room:
            return False
        self._left -= size
        self.force(size)
        return True

    def add_items(self, count: int) -> None:
        """Add items of a list whose bytes are counted already. Raises Problem: 429, 413, 503."""
        admission = self._admission
        limit = admission.limits.max_items
        if admission.items + count > limit:
            if self.items + count > limit:
                raise over_limit(
                    f"the list has more than {limit} items (max_items, which open maps may have "
                    "together): send it as JSON lines, which may be of any length",
                    setting="max_items",
                    limit=limit,
                )
            raise Problem(
                429,
                "too-many-items",
                "Too many items are open",
                f"the lists of open maps have {admission.items - self.items} items, and this one "
                f"{self.items + count} or more: {limit} is the limit for all (setting max_items); "
                "try again when some have ended",
                headers=(RETRY_AFTER,),
                setting="max_items",
                limit=limit,
            )
        self.add(count * ELEMENT_BYTES)
        admission.items += count
        self.items += count

    def spool(self, size: int) -> None:
        """Add bytes in files. Raises Problem: 503."""
        limit = self._admission.limits.max_total_spool_bytes
        if self._admission.spooled + size > limit:
            raise Problem(
                503,
                "spool-full",
                "The gateway's disk space is taken",
                f"{self._admission.spooled} bytes that were not read yet are in files, of all "
                f"requests: {limit} is the limit (setting max_total_spool_bytes); try again later",
                headers=(RETRY_AFTER,),
                setting="max_total_spool_bytes",
                limit=limit,
            )
        self.force_spool(size)

    def force_spool(self, size: int) -> None:
        self._admission.spooled += size
        self.spooled += size

    @property
    def spool_left(self) -> int:
        """The bytes that may still go to files."""
        return self._admission.limits.max_total_spool_bytes - self._admission.spooled

    def close(self) -> None:
        """Give everything back. Closing it again is harmless."""
        self.leave()
        self._memory.used -= self.size
        self._admission.items -= self.items
        self._admission.spooled -= self.spooled
        self.size = self.items = self.spooled = self._held = self._left = 0

    def _full(self, size: int) -> Problem:
        limit = self._admission.memory_budget
        if self.size + size > limit:
            return over_limit(
                f"the body takes {self.size + size} bytes of memory or more, with its items: "
                f"{limit} is the limit for all requests together (max_memory_bytes); send JSON "
                "lines, which may be of any length",
                setting="max_memory_bytes",
                limit=limit,
            )
        used = self._memory.used
        return Problem(
            503,
            "memory-full",
            "The gateway's memory is taken",
            f"bodies and unread results take {used} bytes of memory, and this request needs {size} "
            f"more: {limit} is the limit (setting max_memory_bytes); try again later",
            headers=(RETRY_AFTER,),
            setting="max_memory_bytes",
            limit=limit,
            used=used,
            wanted=size,
        )
