"""The entry point of the command line."""

from __future__ import annotations

import sys

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
