"""Let a test import tasks as a new worker does, and leave this process as it was."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jetmap.codecs import types
from jetmap.functions import locating
from jetmap.functions import task as task_module


@contextmanager
def new_process(monkeypatch: pytest.MonkeyPatch, directory: Path) -> Iterator[None]:
    """Work in a directory, with an empty registry, and forget what is imported meanwhile."""
    monkeypatch.setattr(task_module, "_names", {})
    monkeypatch.setattr(task_module, "_callables", {})
    monkeypatch.setattr(locating, "_resolved", {})
    monkeypatch.setattr(types, "may_import_classes", False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(directory)
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        del sys.modules[name]
    sys.modules.update(before)
