"""Modules as users write them, in a directory of each test."""

from __future__ import annotations

import importlib
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from new_process import new_process


@pytest.fixture
def own_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An empty directory, registry and set of imported modules, as in a new worker."""
    with new_process(monkeypatch, tmp_path):
        yield


@pytest.fixture
def write(own_process: None, tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, source: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("from jetmap.functions.task import task\n" + textwrap.dedent(source))
        importlib.invalidate_caches()
        return path

    return write
