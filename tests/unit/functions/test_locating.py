"""A worker finds the functions that its caller names."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from jetmap.codecs import types
from jetmap.codecs.walk import restore, tag
from jetmap.errors import ConfigurationError, NotImportable
from jetmap.functions import locating
from jetmap.functions import task as task_module
from jetmap.functions.locating import (
    StaleFunction,
    import_main,
    import_tasks,
    load,
    reference,
    resolve,
    running_main,
    source_digest,
    source_files,
)
from jetmap.functions.task import find, task
from jetmap.wire.messages import FunctionRef

Write = Callable[[str, str], Path]


@pytest.fixture(autouse=True)
def own_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An empty directory, registry and set of imported modules, as in a new worker."""
    monkeypatch.setattr(task_module, "_names", {})
    monkeypatch.setattr(task_module, "_callables", {})
    monkeypatch.setattr(locating, "_resolved", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        del sys.modules[name]
    sys.modules.update(before)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, source: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("from jetmap.functions.task import task\n" + textwrap.dedent(source))
        importlib.invalidate_caches()
        return path

    return write


ONE = """
    @task
    def double(x: int) -> int:
        return 2 * x
"""


def forget(*modules: str) -> None:
    """Forget all functions, like a new process."""
    for name in modules:
        sys.modules.pop(name, None)
    task_module._names.clear()
    locating._resolved.clear()


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


def test_references_lead_to_their_functions(write: Write) -> None:
    write("tasks_b.py", ONE + "\n    class C:\n        @staticmethod\n        @task\n"
          "        def method(x): return x\n")  # fmt: skip
    functions = load(tasks=["tasks_b.py"])
    references = [reference(function) for function in functions]
    assert references[0].module == "tasks_b"
    assert references[0].path is None
    assert references[0].value is None
    assert [resolve(ref) for ref in references] == functions
    forget("tasks_b")
    again = [resolve(ref) for ref in references]
    assert [f.qualname for f in again] == ["double", "C.method"]
    assert [resolve(ref) for ref in references] == again


def test_a_function_decorated_elsewhere_is_found_by_its_name(write: Write) -> None:
    write("lib_a.py", "def half(x: int) -> float: return x / 2")
    write("tasks_c.py", "import lib_a, math\ntask(lib_a.half)\ntask(math.sqrt)")
    load(tasks=["tasks_c.py"])
    half, sqrt = find("half"), find("sqrt")
    assert half is not None
    assert sqrt is not None
    references = [reference(half), reference(sqrt)]
    forget("lib_a", "tasks_c")
    assert [resolve(ref).callable(4) for ref in references] == [2.0, 2.0]


def test_what_is_not_there_is_not_importable() -> None:
    with pytest.raises(NotImportable, match="cannot import not_there"):
        resolve(FunctionRef("not_there", "f"))
    with pytest.raises(NotImportable, match="math has no nothing"):
        resolve(FunctionRef("math", "nothing"))
    with pytest.raises(NotImportable, match="was sent by value"):
        resolve(FunctionRef("__main__", "f", value=b"no pickle", digest="x"))


def test_local_functions_and_lambdas_are_not_importable() -> None:
    @task
    def local(x: int) -> int:
        return x

    nameless = task(name="nameless")(lambda x: x)
    with pytest.raises(NotImportable, match=r"local is defined inside a function.*module level"):
        reference(find(local))
    with pytest.raises(NotImportable, match=r"is a lambda.*move it to module level"):
        reference(find(nameless))


def test_a_changed_file_makes_the_imported_function_stale(write: Write) -> None:
    write("tasks_d.py", ONE)
    [old] = load(tasks=["tasks_d.py"])
    before = reference(old)
    assert resolve(before) is old

    write("tasks_d.py", ONE.replace("2 *", "2000 *"))
    after = reference(old)
    assert after.digest != before.digest
    with pytest.raises(StaleFunction):
        resolve(after)

    forget("tasks_d")
    new = resolve(after)
    assert new.callable(1) == 2000
    # A chunk from before the change: there is nothing newer to restart for.
    assert resolve(before) is new


def test_functions_without_a_file_travel_by_value() -> None:
    sender = textwrap.dedent(
        """
        import sys, msgspec
        from jetmap.functions.task import task, find
        from jetmap.functions.locating import reference, running_main
        assert running_main() is None
        K = 10
        def helper(x): return K * x
        def define():
            @task(name="by.value", timeout=3)
            def f(x: int, *, add: int = 0) -> int: return helper(x) + add
            return f
        f = define()
        sys.stdout.buffer.write(msgspec.msgpack.encode(reference(find(f))))
        """
    )
    for command in ([sys.executable, "-c", sender], [sys.executable, "-"]):
        done = subprocess.run(
            command, input=sender.encode(), stdout=subprocess.PIPE, timeout=30, check=True
        )

        ref = msgspec.msgpack.decode(done.stdout, type=FunctionRef)
        assert ref.value is not None
        function = resolve(ref)
        assert function.callable(4, add=2) == 42
        assert (function.name, function.timeout) == ("by.value", 3)
        assert function.item.schema() == {"type": "integer"}
        assert function.kwargs.decode(b'{"add":1}', "json") == {"add": 1}
        assert resolve(ref) is function
        assert find("by.value") is None


def test_python_m_is_found_in_its_module(write: Write, tmp_path: Path) -> None:
    write("pack_m/__init__.py", "")
    write(
        "pack_m/run.py",
        ONE
        + """
    if __name__ == "__main__":
        from jetmap.functions.task import find
        from jetmap.functions.locating import reference, running_main
        ref = reference(find(double))
        print(ref.module, ref.qualname, ref.path, ref.value, running_main())
    """,
    )
    done = subprocess.run(
        [sys.executable, "-m", "pack_m.run"],
        capture_output=True, text=True, timeout=30, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout == "pack_m.run double None None None\n"


def test_a_script_is_referred_to_by_its_path(write: Write, tmp_path: Path) -> None:
    script = write(
        "script_b.py",
        ONE
        + """
    if __name__ == "__main__":
        from jetmap.functions.task import find
        from jetmap.functions.locating import reference, running_main
        import msgspec, sys
        ref = reference(find(double))
        assert running_main() == ref.path, (running_main(), ref.path)
        sys.stdout.buffer.write(msgspec.msgpack.encode(ref))
    """,
    )
    done = subprocess.run(
        [sys.executable, "script_b.py"],
        stdout=subprocess.PIPE, timeout=30, check=True, cwd=tmp_path,
    )  # fmt: skip

    ref = msgspec.msgpack.decode(done.stdout, type=FunctionRef)
    assert (ref.module, ref.path, ref.value) == ("__main__", str(script), None)
    assert resolve(ref).callable(3) == 6


def test_sources_are_the_users(write: Write) -> None:
    write("pack_s/__init__.py", "")
    helper = write("pack_s/helper.py", "K = 1")
    path = write("pack_s/work.py", "from . import helper\n" + textwrap.dedent(ONE))
    functions = load(tasks=["pack_s/work.py"])
    files = source_files()
    assert {str(helper), str(path)} <= set(files)
    for module in (os, pytest, locating):
        assert module.__file__ not in files

    digest = source_digest(functions)
    assert digest == source_digest(functions)
    write("pack_s/helper.py", "K = 1000")
    assert source_digest(functions) != digest


def test_the_source_digest_does_not_depend_on_the_place(tmp_path: Path) -> None:
    digests = set()
    for place in ("a", "b"):
        directory = tmp_path / place
        directory.mkdir()
        source = "from jetmap.functions.task import task\n" + textwrap.dedent(ONE)
        directory.joinpath("tasks_p.py").write_text(source)
        code = (
            "from jetmap.functions.locating import *\n"
            "print(source_digest(load(tasks=['tasks_p.py'])))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=directory, capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
        digests.add(done.stdout)
    assert len(digests) == 1


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
