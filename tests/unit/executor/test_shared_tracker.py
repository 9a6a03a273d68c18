"""Workers use the caller's resource tracker, in each way in which Python starts one."""

from __future__ import annotations

from multiprocessing import resource_tracker
from types import SimpleNamespace
from typing import Any

import pytest

from jetmap.executor import shared_tracker


class Older:
    """A tracker of Python 3.11 and 3.12."""

    def __init__(self) -> None:
        self._fd: int | None = None
        self.said: list[str] = []

    def ensure_running(self) -> None:
        self.said.append("alive" if self._fd is not None else "started")


class Newer(Older):
    def ensure_running(self) -> None:
        if self._fd is None:
            self._launch()

    def _launch(self) -> None:
        self.said.append("started")


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("kind", [Older, Newer])
def test_the_callers_tracker_is_used_if_it_is_there(
    kind: Any, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def connect(path: str) -> Any:
        asked.append(path)
        if not there:
            raise ConnectionRefusedError
        return SimpleNamespace(tracker=lambda: 7, close=lambda: None)

    monkeypatch.setattr(shared_tracker, "WorkerLink", connect)
    tracker = kind()
    monkeypatch.setattr(resource_tracker, "_resource_tracker", tracker)
    shared_tracker.use_tracker_of("path")
    assert asked == [], "most calls need none"
    tracker.ensure_running()
    tracker.ensure_running()
    assert set(asked) == {"path"}
    if there:
        assert tracker._fd == 7 and "started" not in tracker.said and len(asked) == 1
    else:
        assert "started" in tracker.said
