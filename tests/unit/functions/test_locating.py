"""A worker finds the functions that its caller names."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from jetmap.errors import NotImportable
from jetmap.functions import locating
from jetmap.functions import task as task_module
from jetmap.functions.importing import load
from jetmap.functions.locating import StaleFunction, reference, resolve
from jetmap.functions.source_files import source_digest, source_files
from jetmap.functions.task import find, task
from jetmap.wire.messages import FunctionRef

Write = Callable[[str, str], Path]
pytestmark = pytest.mark.usefixtures("own_process")


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
            "from jetmap.functions.importing import load\n"
            "from jetmap.functions.source_files import source_digest\n"
            "print(source_digest(load(tasks=['tasks_p.py'])))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=directory, capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
        digests.add(done.stdout)
    assert len(digests) == 1
