"""The entry point of the command line."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

import pytest

from jetmap import cli
from jetmap.cli import streams
from jetmap.cli.exits import Exit


def test_ctrl_c_while_the_command_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(streams, "prepare", interrupt)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == Exit.INTERRUPTED


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--version"], Exit.OK), (["tasks.py"], Exit.USAGE)]
)
def test_main_exits_with_the_commands_code(
    arguments: list[str], code: Exit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "prepare", lambda: None)
    monkeypatch.setattr(sys, "argv", ["jetmap", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert (end.value.code or 0) == code


def test_only_commands_run_with_the_garbage_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []

    def note() -> None:
        found.append(gc.isenabled())

    def build(arguments: list[str]) -> Callable[[], None]:
        note()
        return note

    monkeypatch.setattr(streams, "prepare", note)
    monkeypatch.setattr("jetmap.cli.app.build", build)
    cli.main()
    assert found == [False, False, True]
