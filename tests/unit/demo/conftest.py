"""The functions of the demo, without their names in the registry of the tests' process."""

from __future__ import annotations

from types import ModuleType

import pytest

from jetmap.functions import task


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module ``jetmap.demo.tasks``; other modules of this process use the same names."""
    monkeypatch.setattr(task, "_names", {})
    monkeypatch.setattr(task, "_callables", {})
    from jetmap.demo import tasks

    return tasks
