"""The notes of the soak's functions: what ran, where and when. No jetmap in here.

Each worker writes one file, ``<agent's pid>-<its pid>-<when>.runs``, with a line before each item
that it computes, and further ones while an item takes long or has a child.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

# Variable that holds an agent's pid in the processes that its items start.
AGENT = "SOAK_AGENT"


@dataclass
class Run:
    """One execution of an item. until: when its worker began the next call. seen: when it was
    last seen to compute. call: the executions of this call, of a batch or of this item alone.
    how: the way in which an item of a batch goes wrong. final: whether it was its worker's last."""

    map: str
    number: int
    at: float
    agent: int
    worker: int
    seen: float
    until: float = math.inf
    worker_was: Worker | None = None
    call: list[Run] = field(default_factory=list, repr=False, compare=False)
    how: str = ""

    @property
    def final(self) -> bool:
        last = self.worker_was.last if self.worker_was is not None else None
        return last is not None and (last is self or last.call is self.call)


@dataclass
class Worker:
    """A worker's life, as it wrote it down."""

    agent: int
    pid: int
    last: Run | None = None
    children: list[int] = field(default_factory=list)


class Notes:
    """by_map: the executions of each item, by map and number, in their order."""

    def __init__(self) -> None:
        self.by_map: dict[str, dict[int, list[Run]]] = defaultdict(lambda: defaultdict(list))
        self.workers: dict[Path, Worker] = {}
        self._offsets: dict[Path, int] = {}

    def read(self, files: Iterable[Path]) -> None:
        """Read the complete lines that are new in these files."""
        for path in files:
            with path.open("rb") as file:
                file.seek(self._offsets.get(path, 0))
                data = file.read()
            whole = data.rfind(b"\n") + 1
            self._offsets[path] = self._offsets.get(path, 0) + whole
            agent, worker, _ = path.stem.split("-")
            if path not in self.workers:
                self.workers[path] = Worker(int(agent), int(worker))
            for line in data[:whole].decode().splitlines():
                self._take(self.workers[path], line.split())

    def _take(self, worker: Worker, fields: list[str]) -> None:
        name, number, at = fields[0], int(fields[1]), float(fields[2])
        what = fields[3] if len(fields) > 3 else ""
        if what == "tick" or what.isdigit():
            if what != "tick":
                worker.children.append(int(what))
            if worker.last is not None:
                worker.last.seen = at
            return
        run = Run(name, number, at, worker.agent, worker.pid, at, worker_was=worker, how=what)
        if worker.last is not None and worker.last.at == at:
            run.call = worker.last.call
        elif worker.last is not None:
            for ended in worker.last.call:
                ended.until = at
        run.call.append(run)
        worker.last = run
        several = self.by_map[name][number]
        several.append(run)
        several.sort(key=lambda run: run.at)
