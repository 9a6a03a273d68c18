"""The class that workers get in place of ``Cluster``, which they do not use."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Annotated, Any

import pydantic
import pytest

import jetmap
from jetmap import Cluster
from jetmap.worker import stand_ins

WORKER = "import sys, jetmap.worker.main as main\nmain.in_worker = True\n"
LOADED = "print('jetmap.client.cluster' in sys.modules)"

stand_in: Any = stand_ins.Cluster


def test_only_a_worker_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = SimpleNamespace(in_worker=False)
    monkeypatch.setitem(sys.modules, "jetmap.worker.main", worker)  # type: ignore[arg-type]
    assert jetmap.__getattr__("Cluster") is Cluster
    worker.in_worker = True
    assert jetmap.__getattr__("Cluster") is stand_in
    monkeypatch.setattr(jetmap, "Cluster", Cluster)


def test_a_script_that_names_a_cluster_costs_its_workers_no_client() -> None:
    script = """
from dataclasses import dataclass
from typing import Annotated, Optional
from jetmap import Cluster, task

@dataclass
class State:
    cluster: Cluster | None = None
    other: Optional[Cluster] = None

async def endpoint(cluster: Annotated[Cluster, "from somewhere"]) -> list[Cluster]:
    return [cluster]

@task
def double(n: int) -> int:
    return 2 * n
"""
    command = [sys.executable, "-c", WORKER + script + LOADED]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_it_does_what_a_cluster_does() -> None:
    made = stand_in(inline=True)
    assert type(made) is Cluster
    assert isinstance(made, stand_in) and not isinstance(1, stand_in)
    assert issubclass(Cluster, stand_in) and issubclass(stand_in, stand_in)
    assert not issubclass(int, stand_in)
    assert stand_in.map is Cluster.map
    assert (stand_in.__name__, stand_in.__module__) == ("Cluster", Cluster.__module__)
    with pytest.raises(AttributeError, match="nothing"):
        stand_in.nothing  # noqa: B018


def test_a_subclass_is_one_of_the_real_class() -> None:
    class Mine(stand_in):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(inline=True, **options)
            self.is_mine = True

    assert Mine.__mro__[1] is Cluster
    assert Mine().is_mine and isinstance(Mine(), Cluster)


def test_annotations_take_it_for_a_class() -> None:
    class Model(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
        cluster: Annotated[stand_in, "from somewhere"]

    assert isinstance(Model(cluster=Cluster(inline=True)).cluster, Cluster)
    with pytest.raises(pydantic.ValidationError):
        Model(cluster=1)
