"""The settings of workers, and of the chunks that they compute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from jetmap.machine import memory

from .kinds import (
    Attempts,
    Cores,
    CountOrOff,
    Grace,
    Niceness,
    Port,
    Seconds,
    SecondsOrOff,
    Size,
    SizeOrOff,
    SizeOrZero,
    Timeout,
    WordList,
)
from .metadata import Section, setting

LEAST_ARENA = 1 << 20  # Bytes of shared memory below which sharing is not worth its cost.


@dataclass(frozen=True)
class WorkerSettings(Section):
    """An agent and its worker processes."""

    title: ClassVar[str] = "Workers"
    panel: ClassVar[str] = "Workers"

    tasks: WordList = setting(
        [],
        "Task files (tasks.py) or modules (myapp.tasks).",
        help="Task files (tasks.py) or modules (myapp.tasks).",
        metavar="TASKS…",
        positional=True,
    )
    cores: Cores | None = setting(
        None,
        'A number of cores ("4") or a list of cores ("0,2-3"). Not set: all that this process may '
        "use, by affinity and cgroup limits.",
        help='Number of cores ("4"), or a list of cores ("0,2-3").',
        metavar="N|LIST",
    )
    start_timeout: Timeout = setting(
        60.0,
        "Seconds until the first worker must be ready; importing the functions counts.",
        help="Time until the first worker must be ready.",
        metavar="SECONDS",
        keeper="starter",
    )
    load_timeout: Timeout = setting(
        300.0,
        "Seconds that each per_worker loader may take before a worker is ready.",
        help="Time that a per_worker loader may take.",
        limit="one `per_worker` loader in a worker that starts: `WorkerStartFailed`",
        metavar="SECONDS",
        keeper="agree",
    )
    warm_spare: bool = setting(
        True,
        "Where loaders take over a second, keep one more worker ready for when another one dies, "
        "if there is memory for it.",
        help="Keep one more worker ready where loading takes long.",
        keeper="agree",
    )
    version: str | None = setting(
        None,
        "A name for this version of the tasks. Not set: derived from the source files.",
        help="Name of this version of the tasks.",
        metavar="NAME",
        keeper="agree",
    )
    grace: Grace = setting(
        10.0,
        "Seconds after SIGTERM in which to finish chunks; the rest is handed back.",
        help="Time to finish after SIGTERM.",
        metavar="SECONDS",
        keeper="agree",
    )
    nice: Niceness = setting(
        0,
        "Niceness of the workers, 0-19.",
        help="Niceness of the workers.",
        metavar="0-19",
        keeper="agree",
    )
    worker_memory: SizeOrOff | None = setting(
        None,
        "Bytes of data that a worker may hold; beyond, Python raises MemoryError. "
        "Not set, or 0: no limit.",
        help="Data that a worker may hold before Python raises MemoryError.",
        metavar="SIZE",
        keeper="agree",
    )
    output_bytes: SizeOrZero = setting(
        1 << 20,
        "Bytes a second that the functions of each worker may print, four seconds' worth at once. "
        "The rest is dropped, and counted in the output. 0: all is dropped.",
        help="Bytes a second that the functions of a worker may print.",
        metavar="SIZE",
        limit="output of one worker's functions: lines are dropped, and counted in the log",
        unit=" a second",
        keeper="agree",
    )
    recycle_chunks: CountOrOff | None = setting(
        None,
        "Replace a worker after this number of chunks, this number of seconds, or when it holds "
        "this number of bytes. It works on until its replacement is ready. Not set, or 0: never.",
        help="Replace a worker after N chunks.",
        metavar="N",
        keeper="agree",
    )
    recycle_age: SecondsOrOff | None = setting(
        None, help="Replace a worker at this age.", metavar="SECONDS", keeper="agree"
    )
    recycle_memory: SizeOrOff | None = setting(
        None, help="Replace a worker that holds this much memory.", metavar="SIZE", keeper="agree"
    )
    trust_pickle: bool = setting(
        False,
        "Run functions that no worker offers, sent by Python callers: named by module, or pickled "
        "(from a script or notebook). Anyone who can reach the broker can then run any code here. "
        "Workers of the same tasks should agree: those that trust form an offer of their own. In a "
        "Python caller (also Cluster(trust_pickle=True)): load pickled values and exceptions that "
        "workers send back, from whoever can answer on the broker. Gateways load none.",
        help="Run pickled functions sent by callers. Anyone who can reach the broker can then run "
        "code here.",
    )
    metrics_port: Port | None = setting(
        None,
        "Serve metrics of this host's agent at http://metrics_host:metrics_port/metrics. Port 0: "
        "any free port, which the log names. They name functions, and ask for no token: keep "
        "others away. Not set: not served.",
        help="Port on which the agent serves its own /metrics; 0: any free port.",
        metavar="PORT",
    )
    metrics_host: str = setting(
        "127.0.0.1",
        help="Address on which the agent serves its /metrics.",
        metavar="ADDRESS",
    )
    reload: bool = setting(
        False,
        "Replace the workers when a task file changes. While the new source cannot be imported, "
        "they keep the previous version.",
        help="Replace the workers when a task file changes.",
    )


@dataclass(frozen=True)
class ChunkSettings(Section):
    """The size of chunks, and the attempts at items."""

    title: ClassVar[str] = "Chunks"

    chunk_seconds: Seconds = setting(
        0.05,
        (
            "Seconds that a chunk should compute, and the least when a map tapers off. Chunks of a "
            "list that has the pool to itself may take four times as long."
        ),
    )
    chunk_min_seconds: Seconds = setting(0.002)
    chunk_bytes: Size = setting(
        256 << 10, "Bytes of items in a chunk, and of values in one report of its results."
    )
    report_bytes: Size = setting(256 << 10, keeper="agree")
    arena_bytes: SizeOrZero = setting(
        64 << 20,
        "Memory that a caller, and each worker of its host and user, may use for large items and "
        "values on their way between them, while there are any. 0, or less than 1MiB: none.",
        keeper="agree",
    )
    attempts: Attempts = setting(2, "Attempts at an item whose worker dies.")
    withdraw_grace: Grace = setting(
        0.5,
        "Seconds that a worker has to return from an item that nobody wants any more.",
        keeper="agree",
    )

    def arena(self, *, processes: int = 1) -> int:
        """Return ``arena_bytes``, but at most a sixteenth of the memory for all processes; 0 if
        that is too little to be of use.
        """
        size = min(self.arena_bytes, memory() // 16 // max(1, processes))
        return size if size >= LEAST_ARENA else 0

    def conflicts(self) -> Iterator[str]:
        if self.chunk_min_seconds > self.chunk_seconds:
            yield "chunk_min_seconds is larger than chunk_seconds"
