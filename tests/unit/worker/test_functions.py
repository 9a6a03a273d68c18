"""The functions of a worker: imported for its tasks, and for the chunks that bring them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jetmap.codecs import types
from jetmap.errors import NotImportable, WorkerStartFailed
from jetmap.wire import frames
from jetmap.wire.messages import Chunk, FunctionRef
from jetmap.wire.seals import new_key, seal_of
from jetmap.wire.worker_start import Setup
from jetmap.worker.functions import BrokenHome, WorkerFunctions
from new_process import new_process

SOURCE = "from jetmap import task\n\n\n@task\ndef {name}(n: int) -> int:\n    return n\n"
GUEST = FunctionRef("brought", "guest")


@pytest.fixture(autouse=True)
def own_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A directory of modules, and an empty registry, as in a new worker."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_tasks.py").write_text(SOURCE.format(name="own"))
    (tmp_path / "brought.py").write_text(SOURCE.format(name="guest"))
    (tmp_path / "stateful.py").write_text(STATE)
    (tmp_path / "broken_home.py").write_text("1 / 0\n")
    importlib.invalidate_caches()
    with new_process(monkeypatch, tmp_path):
        yield


STATE = """
from __future__ import annotations
from typing import TYPE_CHECKING, Annotated
from jetmap import per_worker, task

if TYPE_CHECKING:
    from nowhere import Model

def load_model() -> Model:
    return "a model"

def load_badly():
    raise OSError("no weights")

@task
def embed(text: str, *, model: Annotated[Model, per_worker(load_model)]) -> str:
    return model

@task
def classify(text: str, *, it: Annotated[Model, per_worker(load_model)]) -> str:
    return it

@task
def plain(text: str) -> str:
    return text

@task
def fail(text: str, *, it: Annotated[Model, per_worker(load_badly)]) -> str:
    return it
"""


class Worker:
    """The functions of a worker, and the frames that it has sent."""

    def __init__(self, tasks: str = "own_tasks.py", **setup: Any) -> None:
        self.sent: list[tuple[bytes, Any]] = []
        self.tasks: list[str] = []
        self.functions = WorkerFunctions(self._send, lambda error: None)
        limits: dict[str, Any] = {"memory_limit": None, "max_value": 1, "max_report": 1}
        limits |= {"output_bytes": 1, "log_level": "info"}
        self.functions.load(Setup(tasks=[tasks], **limits, **setup))

    def _send(self, kind: bytes, message: Any) -> None:
        if kind == frames.TASK:
            self.tasks.append(message.home)
        else:
            self.sent.append((kind, message))

    @property
    def announced(self) -> list[list[str]]:
        """The names in each announcement."""
        ready = [message for kind, message in self.sent if kind == frames.READY]
        return [[function.name for function in message.functions] for message in ready]


def chunk(**fields: Any) -> Chunk:
    return Chunk("m", 1, 1, "guest", "json", 0, 1, "inbox", None, 1.0, b"[1]", **fields)


def test_the_functions_of_tasks_are_announced() -> None:
    worker = Worker()
    assert worker.tasks == ["own_tasks.py", ""], "the import begins, and all have ended"
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
    worker = Worker(modules=["broken_home", "brought"], grows=True)
    assert worker.sent[0][0] == frames.EARLY
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


def function(worker: Worker, name: str) -> Any:
    return worker.functions.by_name[name]


def test_loaders_are_called_once_before_a_worker_is_ready() -> None:
    worker = Worker("stateful.py")
    *before, (kind, ready) = worker.sent
    assert kind == frames.READY and list(ready.loads) == ["stateful.load_model"]
    calls = [frame.loader for kind, frame in before if kind == frames.IMPORTING and frame.loader]
    assert calls == ["stateful.load_model", "stateful.load_badly"]
    assert {each.name: list(each.kwargs["properties"]) for each in ready.functions} == {
        "classify": [],
        "embed": [],
        "fail": [],
        "plain": [],
    }
    state = worker.functions.state_of(chunk(), function(worker, "embed"))
    assert state == {"model": "a model"}
    assert worker.functions.state_of(chunk(), function(worker, "classify")) == {"it": "a model"}


def test_a_loader_that_raises_costs_its_own_functions_only() -> None:
    worker = Worker("stateful.py")
    broken = [frame for kind, frame in worker.sent if kind == frames.BROKEN]
    assert [frame.home for frame in broken] == ["stateful:fail()"]
    assert "no weights" in broken[0].text and "stateful.load_badly" in broken[0].text
    assert broken[0].loader == "stateful.load_badly" and broken[0].files
    # Each chunk tries again, for a reason that may pass.
    with pytest.raises(BrokenHome):
        worker.functions.state_of(chunk(), function(worker, "fail"))
    assert [kind for kind, _ in worker.sent].count(frames.BROKEN) == 2


def test_a_loader_that_killed_a_worker_is_not_called_by_the_next_one_as_it_starts() -> None:
    worker = Worker("stateful.py", unloadable={"stateful.load_model": "it was killed"})
    broken = {frame.home: frame.text for kind, frame in worker.sent if kind == frames.BROKEN}
    assert broken["stateful:embed()"] == broken["stateful:classify()"] == "it was killed"
    state = worker.functions.state_of(chunk(), function(worker, "embed"))
    assert state == {"model": "a model"}


def test_a_worker_does_not_start_if_a_loader_fails_that_worked_elsewhere() -> None:
    with pytest.raises(WorkerStartFailed, match="no weights"):
        Worker("stateful.py", proven=["stateful.load_badly"])


def test_a_worker_does_not_start_if_it_could_call_nothing(tmp_path: Path) -> None:
    source = STATE.replace('return "a model"', "raise OSError('no file')")
    source = source.replace("@task\ndef plain", "def plain")
    (tmp_path / "only.py").write_text(source)
    with pytest.raises(WorkerStartFailed, match="no file"):
        Worker("only.py")


def test_what_a_caller_brings_is_loaded_before_its_chunk_and_by_later_workers() -> None:
    worker = Worker(trust=True, grows=True)
    ref = FunctionRef("stateful", "embed")
    mine = chunk(ref=ref)
    worker.functions.state_of(mine, worker.functions.find(mine, ref))
    kind, loaded = worker.sent[-1]
    assert kind == frames.LOADED and list(loaded.loads) == ["stateful.load_model"]
    later = Worker(trust=True, grows=True, brought=[loaded.brought])
    assert later.sent[-1][0] == frames.READY and "guest" in later.functions.by_name
    assert list(later.sent[-1][1].loads) == ["stateful.load_model"]


def test_pickled_items_need_trust() -> None:
    worker = Worker()
    function = worker.functions.by_name["own"]
    with pytest.raises(PermissionError, match="does not load pickles"):
        worker.functions.pickling(chunk(), function)
    worker = Worker(trust=True)
    assert worker.functions.pickling(chunk(), function) is function.pickling()
    others = FunctionRef("", "", pickles="Python 2.7, cloudpickle 0.1")
    with pytest.raises(NotImportable, match=r"an item of guest was pickled by Python 2\.7"):
        worker.functions.pickling(chunk(ref=others), function)
