"""The ends of commands."""

from __future__ import annotations

import pytest
import typer

from jetmap import errors
from jetmap.cli import exits as ends
from jetmap.cli.exits import ChildFailed, Exit, code_of, exits
from jetmap.cli.streams import OutputFailed, ReaderGone


def end_of(error: BaseException) -> int:
    with pytest.raises(typer.Exit) as end, exits():
        raise error
    return end.value.exit_code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigurationError(["wrong"]), Exit.USAGE),
        (errors.BrokerUnreachable("gone"), Exit.BROKER),
        (errors.WorkerStartFailed("broken"), Exit.WORKERS),
        (errors.NoWorkers("none"), Exit.WORKERS),
        (errors.JobsUnavailable("none"), Exit.STORE),
        (errors.MapTimeout("late"), Exit.TIMEOUT),
        (ChildFailed("worker", 4), Exit.WORKERS),
        (KeyboardInterrupt(), Exit.INTERRUPTED),
        (ExceptionGroup("both", [errors.BrokerUnreachable("gone")]), Exit.BROKER),
        (ZeroDivisionError("division"), Exit.INTERNAL),
        (BrokenPipeError(32, "Broken pipe"), Exit.INTERNAL),
    ],
)
def test_each_error_has_its_code(error: BaseException, code: Exit) -> None:
    assert end_of(error) == code


@pytest.mark.parametrize("is_grouped", [False, True])
def test_a_reader_that_has_read_enough_ends_it_well(
    monkeypatch: pytest.MonkeyPatch, is_grouped: bool
) -> None:
    monkeypatch.setattr(ends, "drop_output", lambda: None)
    error = ReaderGone(32, "Broken pipe")
    assert end_of(ExceptionGroup("one", [error]) if is_grouped else error) == Exit.OK


def test_every_problem_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    end_of(errors.ConfigurationError(["one", "two"]))
    assert capsys.readouterr().err == "jetmap: 2 problems:\n  - one\n  - two\n"


def test_control_characters_of_a_message_do_not_act(capsys: pytest.CaptureFixture[str]) -> None:
    ends.say("one\r\n\x1b[2Jtwo\x85\u202e\n")
    assert capsys.readouterr().err == "jetmap: one\n\\x1b[2Jtwo\\x85\\u202e\n"


def test_a_fault_shows_its_traceback_on_demand(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    end_of(ZeroDivisionError("division"))
    said = capsys.readouterr().err
    assert said.startswith("jetmap: a fault in jetmap: ZeroDivisionError: division")
    assert "Traceback" not in said
    monkeypatch.setenv("JETMAP_DEBUG", "true")
    end_of(ZeroDivisionError("division"))
    assert "Traceback" in capsys.readouterr().err


def test_exits_pass_through() -> None:
    with pytest.raises(typer.Exit) as end, exits():
        raise typer.Exit(7)
    assert end.value.exit_code == 7
    with pytest.raises(SystemExit), exits():
        raise SystemExit(3)


def test_unknown_errors_are_faults() -> None:
    assert code_of(RuntimeError()) == Exit.INTERNAL
    assert code_of(OutputFailed(OSError(28, "No space left on device"))) == Exit.OUTPUT
