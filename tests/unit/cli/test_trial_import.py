"""Imports in a process of their own, which they may end."""

from __future__ import annotations

from pathlib import Path

import pytest

from bad_tasks import TWICE
from jetmap.cli.trial_import import try_import


def test_threads_that_a_file_has_started_are_not_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "starts.py"
    file.write_text(
        f"{TWICE}import threading\nthreading.Thread(target=threading.Event().wait).start()"
    )
    found = try_import([str(file)])
    assert found.functions == ["twice"] and not found.problems


def test_the_file_that_ends_the_process_is_named_behind_earlier_problems(tmp_path: Path) -> None:
    sources = ["1 / 0", "import os; os._exit(3)", TWICE]
    files = [tmp_path / f"{name}_of_trial.py" for name in ("raises", "ends", "good")]
    for file, source in zip(files, sources, strict=True):
        file.write_text(source)
    raised, ended = try_import([str(file) for file in files]).problems
    assert "ZeroDivisionError" in raised
    assert ended.startswith(f"Python exited with code 3 while it imported {files[1]}; ")


def test_an_interrupt_that_a_file_raises_is_its_problem(tmp_path: Path) -> None:
    file = tmp_path / "interrupts.py"
    file.write_text("raise KeyboardInterrupt")
    (problem,) = try_import([str(file)]).problems
    assert problem.endswith("KeyboardInterrupt")


def test_a_function_that_cannot_be_called_is_a_problem(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "nameless.py"
    file.write_text("from jetmap import task\nprint(5)\n@task\ndef f(n: 'Nope'): ...\n")
    (problem,) = try_import([str(file)]).problems
    assert "name 'Nope' is not defined" in problem
    assert capfd.readouterr().out == "5\n"
