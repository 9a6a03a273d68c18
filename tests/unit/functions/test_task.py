"""``@task`` takes functions of one item, and knows them again."""

from __future__ import annotations

import functools
import gc
import importlib
import math
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypedDict, assert_type

import pytest

from jetmap.errors import DuplicateFunction
from jetmap.functions import task as task_module
from jetmap.functions.task import find, registered, task
from waiting import PATIENCE


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_module, "_names", {})
    monkeypatch.setattr(task_module, "_callables", {})


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Write a module, with a source that differs in size each time, and import it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    written: set[str] = set()

    def write(name: str, source: str, *, reload: bool = False) -> Any:
        tmp_path.joinpath(f"{name}.py").write_text(
            f"from jetmap.functions.task import task\n{source}\n"
        )
        importlib.invalidate_caches()
        written.add(name)
        if reload:
            return importlib.reload(sys.modules[name])
        return importlib.import_module(name)

    yield write
    for name in written:
        sys.modules.pop(name, None)


def module_level(n: int, *, scale: float = 1.5, label: str) -> list[float]:
    """Scales.

    More text:
        indented.
    """
    return [n * scale]


def untyped(x): ...  # type: ignore[no-untyped-def]


def test_the_function_is_returned_unchanged() -> None:
    before = dict(module_level.__dict__)
    assert task(module_level) is module_level
    assert module_level.__dict__ == before
    assert pickle.loads(pickle.dumps(module_level)) is module_level
    assert_type(task(math.floor)(1.5), int)
    assert_type(task(name="typed")(math.floor)(1.5), int)


@pytest.mark.parametrize(
    ("option", "advice"),
    [
        ("max_retries", "is it 'retries'\\?"),
        ("timeouts", "is it 'timeout'\\?"),
        ("zzz", "Its options: name, timeout, "),
    ],
)
def test_an_option_that_a_task_does_not_have(option: str, advice: str) -> None:
    with pytest.raises(TypeError, match=f"task\\(\\) has no option '{option}'[.;] {advice}"):
        task(**{option: 1})  # type: ignore[call-overload]


def test_find_by_function_and_by_name() -> None:
    task(name="scaled.by-name", timeout=1.5, attempts=3)(module_level)
    function = find(module_level)
    assert function is find("scaled.by-name")
    assert function.callable is module_level
    assert (function.timeout, function.attempts) == (1.5, 3)
    assert (function.module, function.qualname) == (__name__, "module_level")
    assert find("module_level") is None
    assert registered() == [function]


def test_finding_what_is_no_task_says_so() -> None:
    with pytest.raises(TypeError, match=r"untyped is not a @task; decorate it"):
        find(untyped)
    with pytest.raises(TypeError, match="not a @task"):
        find(functools.partial(module_level, label=""))
    task(module_level)
    wrapper = functools.wraps(module_level)(lambda n: None)
    with pytest.raises(TypeError, match="put @task above its other decorators"):
        find(wrapper)


def bad_signatures() -> list[tuple[Any, str]]:
    async def coroutine(x: int) -> None: ...

    def generator(x: int) -> Iterator[int]:
        yield x

    async def async_generator(x: int) -> Any:
        yield x

    def two(x: int, y: int) -> None: ...
    def second_optional(x: int, y: int = 1) -> None: ...
    def optional(x: int = 1) -> None: ...
    def nothing() -> None: ...
    def only_keyword(*, x: int) -> None: ...
    def args(x: int, *rest: int) -> None: ...
    def kwargs(x: int, **rest: int) -> None: ...

    return [
        (coroutine, "not async"),
        (functools.lru_cache(coroutine), "not async"),
        (generator, "is a generator.*return a list of what it yields"),
        (async_generator, "is a generator.*return a list of what it yields"),
        (two, r"def f\(x, \*, y\)"),
        (second_optional, r"def f\(x, \*, y\)"),
        (optional, r"no default; write: def f\(x\)"),
        (nothing, r"write: def f\(item\)"),
        (only_keyword, r"write: def f\(item\)"),
        (args, r"no \*args"),
        (kwargs, r"no \*args or \*\*kwargs"),
        (functools.partial(two, 1), "takes a function|not a function"),
        (int, "takes a function"),
        ([].append, "takes a function"),
        (math.hypot, "not a function of one item"),
        (pow, "not a function of one item"),
        (3, "takes a function"),
    ]


@pytest.mark.parametrize("case", bad_signatures(), ids=lambda case: str(case[0])[:30])
def test_other_signatures_are_refused_with_what_to_write(case: tuple[Any, str]) -> None:
    f, message = case
    with pytest.raises(TypeError, match=message):
        task(f)


def test_wrapped_and_builtin_functions_are_taken() -> None:
    @task(name="cached")
    @functools.lru_cache
    def cached(x: int) -> int:
        return x

    assert find("cached") is find(cached)
    assert find(cached).item.decode(b"1", "json") == 1
    assert task(math.sqrt) is math.sqrt
    assert find("sqrt").callable(4.0) == 2.0  # type: ignore[union-attr]
    assert find(math.sqrt).info().item == {}

    class Holder:
        @staticmethod
        @task
        def method(x: str) -> str:
            return x

    assert find(Holder.method).item.decode(b'"a"', "json") == "a"


@pytest.mark.parametrize("name", ["", "1a", "a b", "a/b", "-a", ".", "ä", "a\n"])
def test_names_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match="not a function name"):
        task(name=name)(module_level)


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(ValueError, match="give it one"):
        task(lambda x: x)
    double = task(name="double")(lambda x: 2 * x)
    assert find(double).name == "double"


@pytest.mark.parametrize("timeout", [0, -1, math.inf, math.nan])
def test_timeouts_are_checked(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout must be"):
        task(module_level, timeout=timeout)


@pytest.mark.parametrize("cores", [0, -1, 1.5])
def test_a_limit_of_cores_is_checked_and_announced(cores: Any) -> None:
    with pytest.raises(ValueError, match="max_parallel must be a number of cores from 1 to"):
        task(module_level, max_parallel=cores)
    assert task_module.Function(module_level, max_parallel=3).info().max_parallel == 3


@pytest.mark.parametrize("attempts", [0, -1, 1.5])
def test_attempts_are_checked(attempts: Any) -> None:
    with pytest.raises(ValueError, match="attempts must be"):
        task(module_level, attempts=attempts)


def test_the_same_function_twice_is_no_duplicate() -> None:
    task(module_level)
    task(module_level, timeout=3)
    assert find(module_level).timeout == 3
    assert len(registered()) == 1


def test_two_functions_of_one_name_are_refused() -> None:
    task(module_level)
    with pytest.raises(DuplicateFunction, match=r"two functions are named 'module_level'.*name="):
        task(name="module_level")(untyped)
    assert find("module_level") is find(module_level)


def test_a_second_definition_in_one_module_is_refused(write_module: Callable[..., Any]) -> None:
    with pytest.raises(DuplicateFunction):
        write_module("twice", "@task\ndef f(x): return 1\n@task\ndef f(x): return 2")


def test_a_reloaded_module_replaces_its_functions(write_module: Callable[..., Any]) -> None:
    old = write_module("reloaded", "@task\ndef f(x): return 1").f
    new = write_module("reloaded", "@task\ndef f(x): return 22", reload=True).f
    assert old is not new
    function = find("f")
    assert function is find(new)
    assert function is not None
    assert function.callable is new
    assert find(old).callable is old
    del old
    gc.collect()
    assert [f.callable for f in registered()] == [new]


def test_a_reload_may_give_a_name_to_another_function(write_module: Callable[..., Any]) -> None:
    write_module("renamed", "@task(name='n')\ndef f(x): return 1")
    module = write_module("renamed", "@task(name='n')\ndef gg(x): return 1", reload=True)
    assert find("n") is find(module.gg)


def test_a_module_imported_anew_replaces_its_functions(write_module: Callable[..., Any]) -> None:
    write_module("anew", "@task\ndef f(x): return 1")
    del sys.modules["anew"]
    module = write_module("anew", "@task\ndef f(x): return 1")
    assert find("f") is find(module.f)


def test_local_functions_are_held_weakly() -> None:
    def define() -> Callable[[int], int]:
        @task(name="local")
        def local(x: int) -> int:
            return x + 1 if x else local(x)  # a cycle: only the collector frees it

        return local

    first = define()
    assert find("local") is find(first)
    with pytest.raises(DuplicateFunction):
        define()
    del first
    second = define()
    assert find("local") is find(second)
    del second
    gc.collect()
    assert find("local") is None
    assert registered() == []


def test_a_reference_to_a_function_that_is_gone_says_so() -> None:
    def local(x: int) -> int:
        return x

    function = find(task(local))
    del local
    with pytest.raises(ReferenceError, match="local no longer exists"):
        _ = function.callable


def test_local_types_are_known_to_local_functions() -> None:
    class Local(TypedDict):
        a: int

    @task
    def f(x: Local, *, y: Local | None = None) -> list[Local]:
        return [x]

    assert find(f).item.decode(b'{"a": 1}', "json") == {"a": 1}
    with pytest.raises(ValueError):
        find(f).value.decode(b'[{"a": "1"}]', "json")
    assert find(f).kwargs.decode(b"", "json") == {}


def test_types_are_resolved_at_first_use(write_module: Callable[..., Any]) -> None:
    module = write_module(
        "forward",
        "@task\ndef f(x: 'Later') -> 'Later': return x\n"
        "import dataclasses\n@dataclasses.dataclass\nclass Later:\n  a: int",
    )
    assert find(module.f).item.decode(b'{"a": 1}', "json") == module.Later(1)


def test_unresolvable_and_unsupported_types_are_named(write_module: Callable[..., Any]) -> None:
    module = write_module(
        "wrong_types",
        "class Alien: pass\n@task\ndef f(x: 'Missing', *, k: list[Alien] = ()) -> Alien: ...",
    )
    function = find(module.f)
    with pytest.raises(TypeError, match=r"wrong_types.f \(x: Missing\): name 'Missing' is not"):
        _ = function.item
    with pytest.raises(TypeError, match=r"wrong_types.f \(-> wrong_types.Alien\): Alien cannot tr"):
        _ = function.value
    with pytest.raises(TypeError, match=r"wrong_types.f \(k: list\[wrong_types.Alien\]\): Alien"):
        _ = function.kwargs


def test_info_describes_the_function() -> None:
    info = find(task(module_level, timeout=2)).info()
    assert info.name == "module_level"
    assert info.doc == "Scales.\n\nMore text:\n    indented."
    assert info.item == {"type": "integer"}
    assert info.value == {"type": "array", "items": {"type": "number"}}
    assert info.kwargs["properties"]["scale"] == {"type": "number", "default": 1.5}
    assert info.kwargs["required"] == ["label"]
    assert info.timeout == 2
    assert info.module == __name__


def test_no_annotation_means_anything() -> None:
    function = find(task(untyped))
    assert function.item.decode(b'[1, {"a": null}]', "json") == [1, {"a": None}]
    assert function.value.schema() == {}
    assert function.info().kwargs["properties"] == {}


def test_importing_tasks_is_cheap() -> None:
    code = (
        "import sys\n"
        "heavy = {'asyncio', 'pydantic', 'nats', 'concurrent.futures', 'inspect', 'msgspec'}\n"
        "heavy -= set(sys.modules)  # `make coverage` imports some.\n"
        "import jetmap.functions.task, jetmap.functions.locating\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "@jetmap.functions.task.task\n"
        "def f(x, *, y=1): ...\n"
        "jetmap.functions.task.find(f)\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-"], input=code, capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout


def test_a_function_without_a_file_is_replaced_by_its_next_definition() -> None:
    code = (
        "from jetmap.functions.task import task, find\n"
        "@task\n"
        "def f(x): return 1\n"
        "old = f\n"
        "@task\n"
        "def f(x): return 2\n"
        "assert find('f') is find(f) and find(f).callable is f\n"
        "assert find(old).callable is old\n"
        "assert find(f).by_value and find(f).module == '__main__'\n"
        "print('replaced')\n"
    )
    assert run(code) == "replaced\n"
