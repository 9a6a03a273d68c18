"""Items that take too much memory: of a limit of their worker's, or of their host's."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import functions
from jetmap import Cluster, ItemRaised, WorkerLost
from load import orders
from servers import CORES, FUNCTIONS, Site, check
from tools import skip_or_fail
from waiting import wait_until_sync

pytestmark = pytest.mark.anyio

LIMIT = 400_000_000
BAD = (0, 777, 1_000, 1_001, 1_999)


async def test_beyond_its_workers_limit_an_item_raises(place: Site, own: Cluster) -> None:
    agent = await place.agent(own, FUNCTIONS, "--worker-memory", str(LIMIT))
    before = {worker.pid for worker in agent.workers}
    bad = {n: f"memory:{5 * LIMIT}" for n in BAD}
    values = await own.map(functions.hurt, orders(2_000, bad), return_exceptions=True)
    check(values, range(2_000), dict.fromkeys(bad, ItemRaised))
    assert {values[n].type for n in bad} == {"MemoryError"}
    assert {worker.pid for worker in agent.workers} == before, "it cost no worker"


class ControlGroup:
    """A kernel's limit of memory for the processes in it, as a container has it."""

    def __init__(self) -> None:
        root = Path("/sys/fs/cgroup")
        first = (root / "memory").is_dir()  # Version one.
        self.directory = root / ("memory" if first else "") / f"jetmap-{secrets.token_hex(4)}"
        self._limit = "memory.limit_in_bytes" if first else "memory.max"

    def make(self, limit: int) -> None:
        """Make the cgroup. Raises OSError where that is impossible."""
        self.directory.mkdir()
        try:
            (self.directory / self._limit).write_text(str(limit))
            # What is swapped out would not count.
            if (swap := self.directory / "memory.swap.max").exists():
                swap.write_text("0")
        except OSError:
            self.directory.rmdir()
            raise

    @property
    def inside(self) -> tuple[str, ...]:
        """Return the command that runs another one in the cgroup."""
        return ("sh", "-c", f'echo $$ > {self.directory}/cgroup.procs && exec "$@"', "sh")

    def remove(self) -> None:
        def is_removed() -> bool:
            try:
                self.directory.rmdir()
            except OSError:
                return False  # Its processes are about to be gone.
            return True

        wait_until_sync(is_removed, "the control group is empty")


@pytest.fixture
def group() -> Iterator[ControlGroup]:
    made = ControlGroup()
    try:
        made.make(LIMIT)
    except OSError as error:
        skip_or_fail(
            f"a control group with a limit of memory cannot be made here ({error}); what its "
            "kernel does, SIGKILL, test_one_raises_and_three_kill does too"
        )
    yield made
    made.remove()


@pytest.mark.parametrize("bad", [BAD[1:2], pytest.param(BAD, marks=pytest.mark.slow)])
async def test_an_item_that_the_kernel_kills_for_its_memory(
    group: ControlGroup, place: Site, own: Cluster, bad: tuple[int, ...]
) -> None:
    agent = await place.agent(own, within=group.inside)
    items = [(n, 5 * LIMIT if n in bad else 10) for n in range(2_000)]
    values = await own.map(functions.fill, items, return_exceptions=True)
    check(values, range(2_000), dict.fromkeys(bad, WorkerLost))
    for n in bad:
        error = values[n]
        assert (error.signal, error.attempts) == (signal.SIGKILL, 2)
        # It was the item's memory: the worker was about as large as the limit lets it be.
        assert LIMIT / 4 < error.peak_memory <= LIMIT + os.sysconf("SC_PAGE_SIZE") * 1000
    assert not agent.has_exited(), agent.said
    await place.until_ready(own, agent)
    assert len(agent.workers) == CORES
