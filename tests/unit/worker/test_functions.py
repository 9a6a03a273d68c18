"""The functions of a worker: imported for its tasks, and for the chunks that bring them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jetmap.codecs import types
from jetmap.functions import locating
from jetmap.functions import task as task_module
from jetmap.wire import frames
from jetmap.wire.messages import Chunk, FunctionRef
from jetmap.wire.seals import new_key, seal_of
from jetmap.wire.worker_start import Setup
from jetmap.worker.functions import BrokenHome, WorkerFunctions

SOURCE = "from jetmap import task\n\n\n@task\ndef {name}(n: int) -> int:\n    return n\n"
GUEST = FunctionRef("brought", "guest")


@pytest.fixture(autouse=True)
def own_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A directory of modules, and an empty registry, as in a new worker."""
    monkeypatch.setattr(task_module, "_names", {})
    monkeypatch.setattr(task_module, "_callables", {})
    monkeypatch.setattr(locating, "_resolved", {})
    monkeypatch.setattr(types, "may_import_classes", False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_tasks.py").write_text(SOURCE.format(name="own"))
    (tmp_path / "brought.py").write_text(SOURCE.format(name="guest"))
    (tmp_path / "broken_home.py").write_text("1 / 0\n")
    importlib.invalidate_caches()
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        del sys.modules[name]


class Worker:
    """The functions of a worker, and the frames that it has sent."""

    def __init__(self, **setup: Any) -> None:
        self.sent: list[tuple[bytes, Any]] = []
        self.functions = WorkerFunctions(lambda *frame: self.sent.append(frame), lambda error: None)
        limits: dict[str, Any] = {"memory_limit": None, "max_value": 1, "max_report": 1}
        limits |= {"output_bytes": 1, "log_level": "info"}
        self.functions.load(Setup(tasks=["own_tasks.py"], **limits, **setup))

    @property
    def announced(self) -> list[list[str]]:
        """The names in each announcement."""
        ready = [message for kind, message in self.sent if kind == frames.READY]
        return [[function.name for function in message.functions] for message in ready]


def chunk(**fields: Any) -> Chunk:
    return Chunk("m", 1, 1, "guest", "json", 0, 1, "inbox", None, 1.0, b"[1]", **fields)


def test_the_functions_of_tasks_are_announced() -> None:
    worker = Worker()
    assert worker.announced == [["own"]] and list(worker.functions.by_name) == ["own"]


@pytest.mark.parametrize("grows", [True, False])
def test_a_trusted_chunk_names_the_module_of_its_function(grows: bool) -> None:
    worker = Worker(trust=True, grows=grows)
    assert worker.functions.takes(chunk())
    assert worker.functions.find(chunk(), GUEST).callable(3) == 3
    worker.functions.find(chunk(), GUEST)
    assert worker.announced[1:] == ([["own", "guest"]] if grows else [])
    imported = [message.home for kind, message in worker.sent if kind == frames.IMPORTING]
    assert imported == ["brought", ""], "once"


def test_a_module_that_raises_is_reported_as_broken() -> None:
    worker = Worker(trust=True)
    with pytest.raises(BrokenHome):
        worker.functions.find(chunk(), FunctionRef("broken_home", "f"))
    kinds = [kind for kind, _ in worker.sent[1:]]
    assert kinds == [frames.IMPORTING, frames.BROKEN, frames.IMPORTING]
    broken = worker.sent[2][1]
    assert broken.home == "broken_home" and "ZeroDivisionError" in broken.text


def test_modules_of_the_program_are_announced_even_if_one_is_broken() -> None:
    worker = Worker(modules=["broken_home", "brought"])
    worker.functions.load_early(["broken_home", "brought"])
    assert worker.announced[-1] == ["own", "guest"]
    assert [kind for kind, _ in worker.sent].count(frames.BROKEN) == 1


def test_only_a_seal_that_fits_lets_a_chunk_bring_its_function() -> None:
    key = new_key()
    worker = Worker(key=key)
    assert not worker.functions.takes(chunk()) and not types.may_import_classes
    sealed = chunk()
    sealed.seal = seal_of(sealed, key)
    assert worker.functions.takes(sealed)
    assert worker.functions.find(sealed, GUEST).callable(3) == 3
    assert types.may_import_classes
    sealed.seal = b"another"
    with pytest.raises(PermissionError, match="the seal does not fit"):
        worker.functions.find(sealed, GUEST)
