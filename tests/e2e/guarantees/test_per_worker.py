"""A model is loaded once a worker, before it takes items; a spare has it when a worker dies."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from jetmap import Cluster, WorkerStartFailed
from servers import Site
from waiting import wait_until

TASKS = """
from __future__ import annotations
import ctypes, os, time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated
from jetmap import per_worker, task

if TYPE_CHECKING:
    from nowhere import Model

def log(event):
    with open({log!r}, "a") as file:
        file.write(f"{{event}} {{os.getpid()}}\\n")

def load_model() -> Iterator[Model]:
    time.sleep(1.1)
    log("loaded")
    yield os.getpid()
    log("left")

def load_and_hang():
    ctypes.PyDLL(None).sleep(600)  # It keeps the interpreter to itself.

@task
def embed(n: int, *, model: Annotated[Model, per_worker(load_model)]) -> int:
    return model

@task
def classify(n: int, *, model: Annotated[Model, per_worker(load_model)]) -> int:
    return model

@task
def blocks(n: int, *, model: Annotated[Model, per_worker(load_and_hang, timeout=0.3)]) -> int:
    return model
"""


@pytest.mark.anyio
async def test_a_spare_takes_over_and_what_cannot_be_loaded_fails_alone(
    place: Site, own: Cluster, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    tasks = tmp_path / "models.py"
    tasks.write_text(TASKS.format(log=str(log)))
    agent = await place.agent(own, str(tasks), cores=1)

    def pids(event: str) -> list[int]:
        lines = log.read_text().splitlines()
        return [int(line.split()[1]) for line in lines if line.startswith(event)]

    with pytest.raises(WorkerStartFailed, match=r"models.load_and_hang, .* within 0\.3 s"):
        await own.map("blocks", [1])
    first = set(await own.map("embed", [1] * 3)) | set(await own.map("classify", [1] * 3))
    (worker,) = first
    await wait_until(lambda: pids("loaded")[-1] != worker, "there is a spare")
    spare = pids("loaded")[-1]
    os.kill(worker, signal.SIGKILL)
    assert set(await own.map("embed", [1] * 3)) == {spare}, "it was loaded already"
    agent.signal(signal.SIGTERM)
    await wait_until(agent.has_exited, "the agent ends")
    assert spare in pids("left") and worker not in pids("left")
