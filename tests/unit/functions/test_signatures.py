"""Reading a function's definition."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from jetmap.functions.signatures import (
    REQUIRED,
    annotations_of,
    evaluate,
    innermost,
    item_parameter,
    keyword_only,
    module_of,
    renewed,
)


def plain(n: int, *, k: int, m: int = 2) -> int:
    return n


@functools.wraps(plain)
def wrapper(*args: Any, **kwargs: Any) -> Any:
    return plain(*args, **kwargs)


def test_the_wrapped_function_counts() -> None:
    assert innermost(wrapper) is plain
    assert item_parameter(wrapper) == "n"
    assert annotations_of(wrapper)["return"] == "int"
    loop: Any = lambda n: n  # noqa: E731
    loop.__wrapped__ = loop
    assert innermost(loop) is loop


def test_keyword_only_parameters_and_their_defaults() -> None:
    assert keyword_only(plain) == {"k": REQUIRED, "m": 2}
    assert keyword_only(len) == {}


def test_a_builtin_of_one_item() -> None:
    assert item_parameter(abs) == "x"
    with pytest.raises(TypeError, match="not a function of one item"):
        item_parameter(divmod)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def f(): pass", "takes one item; write: def f(item)"),
        ("def f(a, b): pass", "keyword-only: def f(a, *, b)"),
        ("def f(a=1): pass", "the item has no default"),
        ("def f(*a): pass", "has no *args"),
        ("async def f(a): pass", "is not async"),
        ("def f(a): yield a", "return a list"),
    ],
)
def test_other_signatures(source: str, said: str) -> None:
    scope: dict[str, Any] = {}
    exec(source, scope)
    with pytest.raises(TypeError) as refused:
        item_parameter(scope["f"])
    assert said in str(refused.value)


def test_text_is_evaluated_in_a_scope() -> None:
    assert evaluate("list[int]", {}, {}) == list[int]
    assert evaluate("N", {}, {"N": int}) is int
    with pytest.raises(NameError):
        evaluate("Unknown", {}, {})


def test_a_redefined_class_replaces_the_old_one() -> None:
    old = type("C", (), {"__module__": "session"})
    new = type("C", (), {"__module__": "session"})
    scope = {"__name__": "session", "C": new}
    assert renewed(old, scope) is new
    assert renewed(dict[str, list[old]], scope) == dict[str, list[new]]  # type: ignore[valid-type]
    assert renewed(old | None, scope) == new | None
    assert renewed(int, scope) is int


def test_the_module_of_a_script() -> None:
    assert module_of(plain, {}) == __name__
    main = type("F", (), {"__module__": "__mp_main__"})()
    assert module_of(main, {"__spec__": None}) == "__main__"
