"""Parameters that workers pass themselves: found in annotations as written, or refused."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from typing_extensions import TypeAliasType

from jetmap import per_worker, task
from jetmap.client.call import Call
from jetmap.functions.by_value import pickled, unpickled
from jetmap.functions.function import Function
from jetmap.functions.task import find

if TYPE_CHECKING:
    from nowhere import Model  # type: ignore[import-not-found]


class Dog: ...


class Puppy(Dog): ...


def load_model() -> Model:
    raise AssertionError("a caller never calls it")


def load_puppy() -> Iterator[Puppy]:
    yield Puppy()


def define(annotation: str, head: str = "item: int, *, it: {}") -> Any:
    """Decorate a function whose annotations are text."""
    names = dict(globals())
    source = f"from __future__ import annotations\n@task\ndef f({head.format(annotation)}): ..."
    exec(source, names)
    return names["f"]


def test_names_that_only_type_checkers_know_do_not_matter() -> None:
    @task
    def embed(text: str, *, model: Annotated[Model, per_worker(load_model)], other: int = 3) -> str:
        return text

    function = find(embed)
    assert list(function.per_worker) == ["model"]
    info = function.info()
    assert list(info.kwargs["properties"]) == ["other"] and not info.kwargs["required"]
    assert embed("x", model=None) == "x", "in an ordinary call the caller passes it"
    with pytest.raises(TypeError, match="'model' of embed"):
        Call.of(embed, {"model": 1})


def test_a_loader_may_be_defined_later_and_one_that_never_is_is_refused_at_the_first_call() -> None:
    f = define("Annotated[Other, per_worker(load_late)]")
    with pytest.raises(TypeError, match="name 'load_late' is not defined"):
        Call.of(f, None)
    assert "load_late" in find(f).announced().refusal
    find(f).scope["load_late"] = load_model
    assert find(f).per_worker == {"it": per_worker(load_model)}


@pytest.mark.parametrize(
    ("annotation", "error", "said"),
    [
        ("Annotated[str, per_worker(load_puppy)]", TypeError, "returns .*Puppy.* is str"),
        ("Annotated[Puppy, per_worker(Dog)]", TypeError, "returns .*Dog"),
        ("per_worker(load_puppy)", TypeError, "write Annotated"),
        ("Annotated[Dog, per_worker]", TypeError, "needs the loader"),
        ("list[Annotated[Dog, per_worker(load_puppy)]]", TypeError, "for a whole parameter"),
        ("Annotated[Dog, per_worker(Dog), per_worker(Puppy)]", TypeError, "and not 2"),
        ("Annotated[Dog, per_worker(Dog())]", TypeError, "without calls"),
        ("Annotated[Dog, per_worker(lambda path: path)]", TypeError, "needs 'path'"),
        ("Annotated[Dog, per_worker(define)]", TypeError, "needs 'annotation'"),
        ("Annotated[Dog, per_worker(Dog, timeout=0)]", ValueError, "timeout must be"),
    ],
)
def test_a_mark_that_is_wrong_is_refused_at_the_decorator(
    annotation: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        define(annotation)


def test_a_mark_belongs_to_a_keyword_only_parameter() -> None:
    with pytest.raises(TypeError, match="not the item"):
        define("Annotated[Dog, per_worker(Dog)]", "item: {}")


def test_an_alias_may_hold_the_mark() -> None:
    def f(item: int, *, it: Any) -> None: ...

    f.__annotations__["it"] = TypeAliasType("It", Annotated[Dog, per_worker(Dog)])
    assert list(Function(f).per_worker) == ["it"]
    f.__annotations__["it"] = "ItsAlias"
    assert list(Function(f).per_worker) == ["it"]


ItsAlias = Annotated[Dog, per_worker(Dog)]


def test_an_async_loader_is_refused() -> None:
    async def load() -> int:
        return 1

    with pytest.raises(TypeError, match="not async"):
        per_worker(load)


def test_functions_by_value_share_the_loader_that_they_name() -> None:
    """Each function has a pickle of its own; the loader is one for both."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(
        "from __future__ import annotations\n"
        "from typing import Annotated\n"
        "from jetmap import per_worker\n"
        "def load(): return []\n"
        "def f(item, *, a: Annotated[Model, per_worker(load)]): ...\n"
        "def g(item, *, b: Annotated[Model, per_worker(load)]): ...\n",
        names,
    )
    f, g = (Function(names[name]) for name in "fg")
    there = [unpickled(pickled(each), each.qualname) for each in (f, g)]
    marks = [mark for each in there for mark in each.per_worker.values()]
    assert marks[0] == marks[1] and marks[0].owner and marks[0].load() == []
    # A loader that was defined again is another one.
    exec("def load(): return 5", names)
    f.refresh()
    again = unpickled(pickled(f), "f").per_worker["a"]
    assert again != marks[0] and again.load() == 5
    assert pickle.dumps(load_model), "by name: it is in a module"
