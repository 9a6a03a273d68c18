"""The limits of one process: each setting with its type, default and texts, once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jetmap.machine import memory

from .kinds import BytesPerSecond, Count, Depth, HeadSize, Patience, Seconds, Size
from .metadata import Section, setting


@dataclass(frozen=True)
class LimitSettings(Section):
    """Limits of maps, bodies and connections."""

    title: ClassVar[str] = "Limits"

    max_open_maps: Count = setting(
        1_000,
        "Maps open at once in one process, including those that wait for a worker or for their "
        "body; one more is refused (429), by a gateway before it reads the body.",
        limit="maps open in one process, also before their body is complete: `429`, `TooManyMaps`",
    )
    max_items: Count = setting(
        50_000_000,
        "Items of all open lists together in one gateway; one list more is refused (429). JSON "
        "lines and jobs are read as far as there is room, and do not count.",
        limit="items of all open lists in one gateway: `429`",
    )
    max_memory_bytes: Size | None = setting(
        None,
        "Bytes that one process holds in memory for its maps: bodies, unfinished lists, unread "
        "results. Beyond, a gateway refuses bodies (503) and spools results to files, and a map "
        "with unread results gets no more of them. Not set: a quarter of the memory of the "
        "machine, or of this process's cgroup.",
        limit="bodies, lists and unread results in one process: `503`; results spool to files",
        shown="a quarter of the memory",
    )
    max_list: Count = setting(
        10_000_000,
        "Items in a list that comes in one body (JSON lines have no limit).",
        limit="items in one list: `413`, `TooLarge`; streams have no limit",
    )
    max_item_bytes: Size = setting(
        256 << 20,
        "Bytes of one encoded item or value. Above 512 KiB they travel in parts.",
        limit="one item: `413`; in Python, and for a value, that item's error",
        keeper="agree",
    )
    max_put_bytes: Size = setting(
        2 << 30,
        "Bytes of one value that is put into a cluster.",
        limit="one value that `Cluster.put` takes: `TooLarge`",
    )
    max_body_bytes: Size = setting(
        1 << 30,
        "Bytes of a JSON or MessagePack body.",
        limit="a JSON or MessagePack body: `413`; JSON lines have no limit",
    )
    max_buffer_bytes: Size = setting(
        16 << 20,
        "Bytes of results of one map that a slow reader may leave in memory; more spool to a file. "
        "The values of a list may also have the memory that its body took while it was read.",
        limit="unread results of one map in memory: sending pauses, or they spool to a file",
    )
    max_spool_bytes: Size = setting(
        4 << 30,
        "Bytes of results that one map may spool, and all maps of one gateway together.",
        limit="unread results of one map in files: `413`",
    )
    max_total_spool_bytes: Size = setting(
        32 << 30, limit="unread results of all maps of one gateway in files: `503`"
    )
    max_depth: Depth = setting(500, "Nesting of an item.")
    max_header_bytes: HeadSize = setting(
        64 << 10,
        "Bytes of a request's address and headers together; more is refused (431, or 414).",
        limit="a request's address and headers: `431` or `414`, and the connection ends",
    )
    header_timeout: Patience = setting(
        20.0,
        "Seconds from a connection's first byte, or its opening, to the end of a request's headers "
        "(408).",
        limit="time until a request's headers are complete: `408`",
    )
    body_idle_timeout: Patience = setting(
        60.0,
        "Seconds without a byte after which the body of a map is given up (408). Raise it for "
        "clients that send JSON lines with long pauses, or have them send empty lines.",
        limit="time without a byte of a map's body: `408`",
    )
    job_upload_idle: Seconds = setting(
        60.0,
        "Seconds without a byte after which the body of a job is given up (408) and removed.",
        limit="time without a byte of a job's body: `408`",
    )
    min_body_rate: BytesPerSecond = setting(
        128,
        "Bytes a second that a body, or each line of JSON lines, must average once the gateway has "
        "waited a minute for it (408). 0: no limit.",
        limit="average rate of a body, after a minute of waiting: `408`",
        unit=" bytes/s",
    )
    send_timeout: Patience = setting(
        300.0,
        "Seconds after which the connection of a client that neither reads nor sends is closed.",
        limit="time in which a client neither reads nor sends: the connection is closed",
    )
    keep_alive: Patience = setting(
        75.0,
        "Seconds that a connection is kept between two requests.",
        limit="time between two requests: the connection is closed",
    )
    max_connections: Count | None = setting(
        None,
        "Connections open at once; for one more, the one that has been silent longest is closed. "
        "Not set: three quarters of the file descriptors that this process may have.",
        limit="open connections: the one that has been silent longest is closed, or `503`",
        shown="three quarters of the descriptors",
    )

    def fitting(self, max_item: int) -> LimitSettings:
        """Return limits whose items also fit into ``max_item`` bytes."""
        if self.max_item_bytes <= max_item:
            return self
        return self.replace(max_item_bytes=max_item)

    def memory_budget(self) -> int:
        """Return ``max_memory_bytes``, else a quarter of this machine's or cgroup's memory."""
        return int(self.max_memory_bytes or memory() // 4)
