"""Modules as users write them, in a directory of each test."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jetmap.functions import locating
from jetmap.functions import task as task_module


@pytest.fixture
def own_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An empty directory, registry and set of imported modules, as in a new worker."""
    monkeypatch.setattr(task_module, "_names", {})
    monkeypatch.setattr(task_module, "_callables", {})
    monkeypatch.setattr(locating, "_resolved", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        del sys.modules[name]
    sys.modules.update(before)


@pytest.fixture
def write(own_process: None, tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, source: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("from jetmap.functions.task import task\n" + textwrap.dedent(source))
        importlib.invalidate_caches()
        return path

    return write
