"""Items, parameters, values and errors of commands that run lists."""

from __future__ import annotations

import asyncio
import io
import os
from pathlib import Path
from typing import Any

import pytest

from jetmap.cli.exits import Exit
from jetmap.cli.lists import (
    SHOWN_ERRORS,
    ErrorPrinter,
    Reader,
    count_lines,
    open_lines,
    write_values,
)
from jetmap.cli.progress import Bar
from jetmap.errors import ConfigurationError
from jetmap.settings import LimitSettings
from jetmap.wire.messages import ErrorRecord

pytestmark = pytest.mark.anyio


class Items:
    """A destination of items that keeps them."""

    def __init__(self) -> None:
        self.items: list[bytes] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def put(self, elements: Any) -> None:
        self.items += [bytes(element) for element in elements]

    def fail(self, error: BaseException) -> None:
        self.ended.set_exception(error)

    def close(self) -> None:
        self.ended.set_result(None)


async def read(file: Path) -> tuple[list[bytes], bool]:
    sink = Items()
    with file.open("rb") as source, Reader(source, sink, LimitSettings()) as reader:
        await sink.ended
        return sink.items, reader.is_one_array


async def test_each_line_is_an_item(tmp_path: Path) -> None:
    file = tmp_path / "items"
    file.write_bytes(b"1\n\n" + b"[2,\t3]\n" * 20_000 + b'"last"')
    items, is_one_array = await read(file)
    assert (items[0], items[1], items[-1], len(items)) == (b"1", b"[2,\t3]", b'"last"', 20_002)
    assert not is_one_array


async def test_an_array_on_one_line_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "items"
    file.write_text("[1, 2, 3]\n")
    assert (await read(file))[1]


async def test_malformed_items_are_explained(tmp_path: Path) -> None:
    file = tmp_path / "items"
    file.write_text("[1,\n2]\n")
    with pytest.raises(ConfigurationError, match="begins like a JSON array"):
        await read(file)
    file.write_text('"a"\nfoo\n')
    with pytest.raises(ConfigurationError, match=r"line 2, .*; each line must be one JSON"):
        await read(file)


async def test_a_source_that_cannot_be_read(tmp_path: Path) -> None:
    sink = Items()
    descriptor = os.open(tmp_path / "items", os.O_WRONLY | os.O_CREAT)
    with (
        os.fdopen(descriptor, "wb") as source,
        Reader(source, sink, LimitSettings()),  # type: ignore[arg-type]
        pytest.raises(ConfigurationError, match="the input cannot be read"),
    ):
        await sink.ended


@pytest.mark.parametrize(("text", "count"), [("", 0), ("1\n2\n", 2), ("1\n2", 2)])
def test_lines_of_a_file_are_counted_ahead(text: str, count: int, tmp_path: Path) -> None:
    file = tmp_path / "items"
    file.write_text(text)
    with file.open("rb") as source:
        assert count_lines(source) == count
        assert source.read() == text.encode()


def test_lines_of_a_pipe_are_not() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as source, os.fdopen(writer, "wb"):
        assert count_lines(source) is None


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing cannot be read: No such file"):
        open_lines(str(tmp_path / "nothing"))


def test_a_limited_number_of_errors_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    failures = ErrorPrinter(debug=False)
    with Bar("f", None) as bar:
        for index in range(SHOWN_ERRORS + 5):
            failures.add(ErrorRecord(index, "raised", "ValueError", "wrong", "traceback"), bar)
    assert failures.finish() == Exit.ITEMS_FAILED
    said = capsys.readouterr().err
    assert said.count("ValueError: wrong") == SHOWN_ERRORS
    assert "and 5 more errors" in said and f"{SHOWN_ERRORS + 5} items failed" in said
    assert "traceback" not in said


def test_without_errors_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert ErrorPrinter(debug=True).finish() == Exit.OK
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("is_terminal", [False, True])
def test_control_characters_of_values_do_not_act_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    class Stdout(io.TextIOWrapper):
        def isatty(self) -> bool:
            return is_terminal

    buffer = io.BytesIO()
    monkeypatch.setattr("sys.stdout", Stdout(buffer, "utf-8"))
    values = ['"\x9b2J ü"'.encode(), b"7"]
    write_values(values)
    escaped = '"\\u009b2J ü"\n7\n'.encode()
    assert buffer.getvalue() == (escaped if is_terminal else b"\n".join([*values, b""]))
