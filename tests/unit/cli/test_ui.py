"""`jetmap ui` is a gateway on any free port, unless one was given."""

from __future__ import annotations

from pathlib import Path

import pytest

from jetmap.cli.ui import chosen
from jetmap.settings import Settings


def test_the_port_is_any_free_one_unless_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # Without a configuration file.
    assert chosen(Settings.load()).gateway.port == 0
    assert chosen(Settings.load(port=8123)).gateway.port == 8123
