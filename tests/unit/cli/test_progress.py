"""The progress bar."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from rich.console import Console

from jetmap.cli.progress import Bar, is_one_terminal


def test_a_terminal_shows_the_progress() -> None:
    console = Console(force_terminal=True, width=100, record=True)
    with Bar("double", None, console) as bar:
        bar.done(3, None)
        bar.say("item 2: [bold]failed[/bold]")
        bar.done(1, 4)
    text = console.export_text()
    assert "4/4" in text and "double" in text
    assert "item 2: [bold]failed[/bold]" in text


def test_elsewhere_only_messages_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("double", 4) as bar:
        bar.done(4, 4)
        bar.say("item 2: failed")
    assert capsys.readouterr().err == "item 2: failed\n"


def test_control_characters_of_items_do_not_act(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("double", 4) as bar:
        bar.say("item 2: \x1b[2J\x9b\u202e\nline 2")
    escaped = "item 2: \\x1b[2J\\x9b\\u202e\nline 2\n"
    assert capsys.readouterr().err == escaped
    console = Console(force_terminal=True, width=100)
    with console.capture() as capture, Bar("f\x9b", None, console) as bar:
        bar.say("item 2: \x1b[2J\x9b\u202e\nline 2")
    assert escaped.splitlines()[0] in capture.get()
    assert not {"\x9b", "\u202e"} & set(capture.get()) and "\x1b[2J" not in capture.get()


@pytest.mark.parametrize("terminals", [{1, 2}, {2}, set()])
def test_one_terminal_for_stdout_and_stderr(terminals: set[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "isatty", terminals.__contains__)
        patch.setattr(os, "fstat", lambda fd: SimpleNamespace(st_rdev=7))
        found = is_one_terminal()
    assert found is (terminals == {1, 2})


def test_a_closed_stream_is_not_a_terminal() -> None:
    def closed(fd: int) -> os.stat_result:
        raise OSError(9, "Bad file descriptor")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fstat", closed)
        found = is_one_terminal()
    assert not found
