"""The end of forked children."""

from __future__ import annotations

import os

import pytest

from jetmap.worker import forks
from jetmap.worker.forks import NoPipe


class Exited(BaseException):
    """Raised in place of the end of this process."""


@pytest.fixture
def codes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []

    def leave(code: int) -> None:
        found.append(code)
        raise Exited

    monkeypatch.setattr(os, "_exit", leave)
    return found


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (None, 0, ""),
        (SystemExit(), 0, ""),
        (SystemExit(7), 7, ""),
        (SystemExit(256 + 3), 3, ""),
        (SystemExit("not today"), 1, "not today\n"),
        (KeyboardInterrupt(), 1, "KeyboardInterrupt\n"),
        (ValueError("in the child"), 1, "ValueError: in the child\n"),
    ],
)
def test_the_exit_code_says_how_the_function_was_left(
    codes: list[int],
    capsys: pytest.CaptureFixture[str],
    error: BaseException | None,
    code: int,
    said: str,
) -> None:
    with pytest.raises(Exited):
        forks.end(error)
    assert codes == [code]
    assert capsys.readouterr().err.endswith(said)


def test_an_error_while_it_ends_is_an_exit_code_too(
    codes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def flush(self) -> None:
            raise OSError("the pipe is gone")

    monkeypatch.setattr("sys.stdout", Broken())
    with pytest.raises(Exited):
        forks.end(None)
    assert codes == [1]


def test_a_child_never_answers(codes: list[int]) -> None:
    pipe = NoPipe()
    pipe.close()
    with pytest.raises(Exited):
        pipe.send(b"k", b"payload")
    with pytest.raises(Exited):
        pipe.receive()
    assert codes == [0, 0]
