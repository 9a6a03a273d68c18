"""Task files, modules and scripts, imported as a worker does."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from jetmap.codecs import types
from jetmap.codecs.walk import restore, tag
from jetmap.errors import ConfigurationError
from jetmap.functions.importing import import_main, import_tasks, load
from jetmap.functions.locating import reference, resolve, running_main

Write = Callable[[str, str], Path]
pytestmark = pytest.mark.usefixtures("own_process")

ONE = """
    @task
    def double(x: int) -> int:
        return 2 * x
"""


@pytest.mark.parametrize("argument", ["tasks_a.py", "./tasks_a.py", "tasks_a"])
def test_tasks_are_a_file_or_a_module(write: Write, argument: str) -> None:
    write("tasks_a.py", ONE)
    [function] = load(tasks=[argument])
    assert function.name == "double"
    assert function.module == "tasks_a"
    assert function.callable(2) == 4


def test_a_file_in_a_package_has_its_dotted_name(write: Write, tmp_path: Path) -> None:
    write("src/outer/__init__.py", "")
    write("src/outer/inner/__init__.py", "")
    write("src/outer/inner/work.py", "from ..helper import K\n" + textwrap.dedent(ONE))
    write("src/outer/helper.py", "K = 1")
    [function] = load(tasks=["src/outer/inner/work.py"])
    assert function.module == "outer.inner.work"
    assert sys.path[0] == str(tmp_path / "src")


def test_a_package_may_gather_functions(write: Write) -> None:
    write("pack_a/__init__.py", "from . import part")
    write("pack_a/part.py", ONE)
    assert [f.module for f in load(tasks=["pack_a/"])] == ["pack_a.part"]
    write("gather_a.py", "from pack_a.part import double")
    assert load(tasks=["gather_a.py"])


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        ("missing.py", "missing.py: no such file"),
        ("missing_module", "missing_module: no such module"),
        ("sub/missing", "sub/missing: no such file"),
        ("empty.py", "empty.py has no @task function"),
        ("plain_a", "plain_a is a directory without __init__.py; name its files: plain_a/FILE.py"),
        ("broken.py", r"broken.py:3: "),
        ("twice.py", "two functions are named 'f'"),
        ("a.b.py", "rename the file"),
        ("json.py", "would be imported as 'json', which is already .*json/__init__.py"),
        ("a b", "is not a module's name"),
    ],
)
def test_what_the_user_must_correct_is_a_configuration_error(
    write: Write, argument: str, problem: str
) -> None:
    write("empty.py", "x = 1")
    write("plain_a/part.py", ONE)
    write("broken.py", "x = 1\ndef f(:")
    write("twice.py", "@task\ndef f(x): ...\n@task\ndef f(x): ...")
    write("a.b.py", ONE)
    write("json.py", ONE)
    with pytest.raises(ConfigurationError, match=problem):
        load(tasks=[argument])


def test_what_a_module_raises_is_its_own(write: Write) -> None:
    write("needs.py", "import not_there_at_all")
    with pytest.raises(ModuleNotFoundError, match="not_there_at_all"):
        load(tasks=["needs.py"])
    write("fails.py", "1 / 0")
    with pytest.raises(ZeroDivisionError):
        load(tasks=["fails"])


def test_modules_without_functions_are_taken(write: Write) -> None:
    write("plain_a.py", "x = 1")
    assert load(modules=["plain_a"]) == []
    assert "plain_a" in sys.modules


def test_a_script_is_imported_as_multiprocessing_does(write: Write, tmp_path: Path) -> None:
    script = write(
        "script_a.py",
        """
        from sibling_a import K
        import dataclasses
        @dataclasses.dataclass
        class Item:
            x: "int"
        @task
        def f(item: Item) -> str:
            return __name__
        if __name__ == "__main__":
            raise AssertionError
        """,
    )
    write("sibling_a.py", "K = 1")
    [function] = load(main=str(script))
    assert (function.module, function.qualname) == ("__main__", "f")
    assert function.callable(function.item.decode(b'{"x": 1}', "json")) == "__mp_main__"
    assert import_main("script_a.py") is sys.modules["__main__"]
    assert running_main() == str(script)
    assert resolve(reference(function)) is function


def test_a_script_that_cannot_be_imported_leaves_main_as_it_was(write: Write) -> None:
    main = sys.modules["__main__"]
    write("exits.py", "raise SystemExit(3)")
    with pytest.raises(ConfigurationError, match=r"exits.py exits when .* if __name__ == "):
        load(main="exits.py")
    write("raises.py", "1 / 0")
    with pytest.raises(ZeroDivisionError):
        load(main="raises.py")
    with pytest.raises(ConfigurationError, match=r"nowhere.py: No such file"):
        load(main="nowhere.py")
    assert sys.modules["__main__"] is main


def test_import_tasks_twice_is_one_import(write: Write) -> None:
    write("tasks_e.py", ONE)
    assert import_tasks("tasks_e.py") is import_tasks("tasks_e")


def test_two_scripts_may_name_a_class_alike(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance travels with the path of its class's script, whichever was run last."""
    source = """
        import dataclasses
        @dataclasses.dataclass
        class Point:
            {}: int
    """
    paths = [write(f"{name}.py", source.format(name)) for name in ("one", "two")]
    monkeypatch.setattr(types, "scripts", {})
    first, second = (import_main(str(path)).Point for path in paths)
    assert import_main(str(paths[0])).Point is first
    encode = msgspec.msgpack.Encoder().encode
    sent = [encode([tag(first(1))]), encode([tag(second(2))])]
    decode = msgspec.msgpack.Decoder(ext_hook=restore).decode
    assert [decode(each) for each in sent] == [[first(1)], [second(2)]]
    # Elsewhere it is imported only for callers that are trusted.
    types.scripts.clear()
    monkeypatch.setitem(sys.modules, "__main__", sys)
    with pytest.raises(ValueError, match=r"has not imported the class __main__\.Point of a value"):
        decode(sent[0])
    monkeypatch.setattr(types, "may_import_classes", True)
    monkeypatch.setattr(types, "run_script", import_main)
    [point] = decode(sent[0])
    assert vars(point) == {"one": 1}
