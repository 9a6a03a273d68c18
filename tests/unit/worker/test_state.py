"""Objects of loaders: made once for all functions that name one, torn down in reverse order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any

import pytest

from jetmap.functions.function import Function
from jetmap.functions.per_worker import PerWorker, per_worker
from jetmap.worker.state import KEPT_OWNERS, TEXT_LIMIT, LoadFailed, WorkerState


class Log(list[str]):
    """Calls of loaders and their ends, in order."""

    def loader(self, name: str, *, fails: bool = False) -> Callable[[], Iterator[str]]:
        def load() -> Iterator[str]:
            self.append(name)
            yield name
            self.append(f"-{name}")
            if fails:
                raise OSError("it is stuck")

        return load


def function(*marks: Any) -> Function:
    def f(item: int, *, a: Any = None, b: Any = None, c: Any = None) -> None: ...

    for name, mark in zip("abc", marks, strict=False):
        f.__annotations__[name] = Annotated[Any, mark]
    return Function(f)


def brought(load: Callable[[], Any], owner: str) -> PerWorker:
    return PerWorker(load, None, owner)


def test_one_object_is_shared_and_torn_down_in_reverse_order(capfd: Any) -> None:
    log, state = Log(), WorkerState()
    a, b = log.loader("a", fails=True), log.loader("b")
    assert state.values(function(per_worker(a), per_worker(b))) == {"a": "a", "b": "b"}
    # A mark that was evaluated again is the same loader.
    assert state.values(function(per_worker(b), per_worker(a))) == {"a": "b", "b": "a"}
    assert log == ["a", "b"]
    state.close()
    assert log == ["a", "b", "-b", "-a"] and "it is stuck" in capfd.readouterr().err


def test_a_plain_function_has_nothing_to_tear_down() -> None:
    state = WorkerState()
    assert state.values(function(per_worker(dict))) == {"a": {}}
    assert list(state.seconds) == ["builtins.dict"]


def test_partial_loaders_and_lambdas_are_one_if_they_are_equal() -> None:
    state, made = WorkerState(), []

    def load(size: str) -> list[str]:
        made.append(size)
        return [size]

    marks = [per_worker(partial(load, size)) for size in ("s", "s", "l")]
    values = state.values(function(*marks))
    assert values["a"] is values["b"] and made == ["s", "l"]
    lambdas = [eval("per_worker(lambda: [])", globals()) for _ in range(2)]
    values = state.values(function(*lambdas))
    assert values["a"] is values["b"]


def test_a_context_manager_is_entered_and_left() -> None:
    log, state = Log(), WorkerState()
    assert state.values(function(per_worker(contextmanager(log.loader("a")))))["a"] == "a"
    state.close()
    assert log == ["a", "-a"]


def test_an_object_that_can_be_entered_is_passed_as_it_is() -> None:
    class Connection:
        gen = "its generation"

        def __enter__(self) -> None: ...
        def __exit__(self, *exc_info: object) -> None: ...

    value = WorkerState().values(function(per_worker(Connection)))["a"]
    assert type(value) is Connection


@pytest.mark.parametrize(
    ("body", "said"),
    [("raise OSError('no file')", "no file"), ("raise SystemExit(3)", "SystemExit: 3")],
)
def test_a_loader_that_raises_is_named_with_its_traceback(body: str, said: str) -> None:
    names: dict[str, Any] = {"__name__": "models"}
    exec(f"def load():\n    {body}", names)
    with pytest.raises(LoadFailed, match=said) as raised:
        WorkerState().values(function(per_worker(names["load"])))
    assert raised.value.loader == "models.load" and "makes 'a' of f()" in str(raised.value)
    assert "worker/state.py" not in str(raised.value)


def test_a_generator_that_yields_nothing_or_something_to_await_is_refused() -> None:
    def empty() -> Iterator[int]:
        yield from ()

    async def later() -> None: ...

    waiting: list[Any] = []

    def load() -> Any:
        waiting.append(later())
        return waiting[-1]

    with pytest.raises(LoadFailed, match="yields nothing"):
        WorkerState().values(function(per_worker(empty)))
    with pytest.raises(LoadFailed, match="not async"):
        WorkerState().values(function(per_worker(load)))
    waiting[0].close()


def test_a_loader_that_was_redefined_replaces_what_its_predecessor_made() -> None:
    log, state = Log(), WorkerState()
    for name in ("old", "new"):
        load = log.loader(name)
        load.__qualname__ = "load"
        state.values(function(brought(load, "notebook")))
    assert log == ["old", "-old", "new"]
    assert state.calls == 2 and len(state.seconds) == 1


def test_the_objects_of_callers_that_came_first_make_room() -> None:
    log, state = Log(), WorkerState()
    for number in range(KEPT_OWNERS + 1):
        state.values(function(brought(log.loader(str(number)), f"caller {number}")))
    assert [entry for entry in log if entry.startswith("-")] == ["-0"]


def test_scripts_that_share_workers_keep_their_objects_apart() -> None:
    made, state = [], WorkerState()
    for path in ("one.py", "two.py", "one.py"):
        names: dict[str, Any] = {"__name__": "__main__", "made": made}
        source = f"def load():\n    made.append({path!r})\n    yield\n    made.append('-{path}')"
        exec(compile(source, path, "exec"), names)
        state.values(function(per_worker(names["load"])))
    assert made == ["one.py", "two.py", "-one.py", "one.py"]


def test_a_long_traceback_is_cut() -> None:
    def load() -> None:
        raise OSError("x" * 2 * TEXT_LIMIT)

    with pytest.raises(LoadFailed) as raised:
        WorkerState().values(function(per_worker(load)))
    assert len(str(raised.value)) < 1.1 * TEXT_LIMIT
