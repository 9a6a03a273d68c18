"""A cluster inside a worker: never within an item, and started nowhere in one."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from jetmap.client.in_worker import refuse_in_worker
from jetmap.errors import ClusterClosed


@pytest.mark.parametrize("starting", [False, True])
def test_outside_of_workers(monkeypatch: pytest.MonkeyPatch, starting: bool) -> None:
    monkeypatch.delitem(sys.modules, "jetmap.worker.main", raising=False)
    refuse_in_worker(starting=starting)
    idle = SimpleNamespace(in_item=False, in_worker=False)  # Imported, but not a worker.
    monkeypatch.setitem(sys.modules, "jetmap.worker.main", idle)  # type: ignore[arg-type]
    refuse_in_worker(starting=starting)


@pytest.mark.parametrize(
    ("in_item", "starting", "message"),
    [
        (True, False, "its core would wait for itself"),
        (True, True, "its core would wait for itself"),
        (False, True, "cannot be started inside a worker"),
        (False, False, None),  # A module that workers import may make one.
    ],
)
def test_inside_of_a_worker(
    monkeypatch: pytest.MonkeyPatch, in_item: bool, starting: bool, message: str | None
) -> None:
    worker = SimpleNamespace(in_item=in_item, in_worker=True)
    monkeypatch.setitem(sys.modules, "jetmap.worker.main", worker)  # type: ignore[arg-type]
    if message is None:
        refuse_in_worker(starting=starting)
        return
    with pytest.raises(ClusterClosed, match=message):
        refuse_in_worker(starting=starting)
