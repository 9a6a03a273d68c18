"""Import failures as users see them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bad_tasks import FILES, is_to_the_point
from jetmap.errors import ConfigurationError
from jetmap.functions import task as task_module
from jetmap.functions.import_errors import format_import_error, format_syntax_error
from jetmap.functions.importing import import_tasks, load


def failure_of(source: str, directory: Path, name: str) -> BaseException:
    file = directory / f"{name}.py"
    file.write_text(source)
    try:
        import_tasks(str(file))
    except BaseException as error:
        return error
    pytest.fail("it can be imported")


def test_a_traceback_shows_only_the_users_frames(tmp_path: Path) -> None:
    error = failure_of("def f():\n    return 1 / 0\nf()\n", tmp_path, "raises_at_import")
    text = format_import_error(error)
    assert text.startswith("the import raises:")
    assert "raises_at_import.py" in text and "ZeroDivisionError" in text
    assert "importlib" not in text and "jetmap/functions" not in text


def test_a_sentence_of_jetmap_is_kept() -> None:
    assert format_import_error(ConfigurationError(["no such file"])) == "no such file"


def test_a_syntax_error_shows_line_and_caret(tmp_path: Path) -> None:
    error = failure_of("x = 1\ny = = 2\n", tmp_path, "wrong_syntax")
    assert isinstance(error, SyntaxError)
    first, line, caret = format_syntax_error(error).splitlines()
    assert first.endswith("wrong_syntax.py:2: invalid syntax")
    assert line.index("= 2") == caret.index("^")


def test_a_syntax_error_without_its_source() -> None:
    error = SyntaxError("wrong", ("gone.py", 3, 1, None))
    assert format_syntax_error(error) == "gone.py:3: wrong"


@pytest.fixture
def own_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty registry, as in a new worker, and no module of the name."""
    monkeypatch.setattr(task_module, "_names", {})
    monkeypatch.setattr(task_module, "_callables", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    sys.modules.pop("bad", None)
    yield
    sys.modules.pop("bad", None)


@pytest.mark.parametrize("name", [name for name in FILES if name != "starts a cluster"])
def test_each_failure_is_to_the_point(own_process: None, tmp_path: Path, name: str) -> None:
    file = tmp_path / "bad.py"
    file.write_text(FILES[name][0], encoding="utf-8")
    with pytest.raises((Exception, SystemExit)) as caught:
        for function in load(tasks=[str(file)]):
            function.item  # noqa: B018
    traceback = caught.value.__traceback__
    assert traceback is not None
    error = caught.value.with_traceback(traceback.tb_next)  # Without this test's own frame.
    is_to_the_point(tmp_path, format_import_error(error), name)
