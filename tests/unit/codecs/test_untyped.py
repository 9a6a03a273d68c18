"""The parts of a type that have no annotation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.codecs.native import encode_other
from jetmap.codecs.untyped import is_plain, is_plain_value, is_untyped, tag_walked, tagger_for
from jetmap.codecs.walk import Ext


@dataclass
class Half:
    n: int
    rest: Any


class Tree(TypedDict):
    children: list[Tree]
    label: Any


@pytest.mark.parametrize("type", [int, list[int], dict[str, tuple[int, ...]], int | None])
def test_annotated_types_need_no_tags(type: Any) -> None:
    assert tagger_for(type) is None


@pytest.mark.parametrize("type", [Any, object, list, list[Any], dict[str, Any], Half, Tree])
def test_types_with_an_open_part(type: Any) -> None:
    assert tagger_for(type) is not None


def test_only_open_parts_are_tagged() -> None:
    tagger = tagger_for(Half)
    assert tagger is not None
    found = tagger(Half(1, (2,)))
    assert isinstance(getattr(found, "rest", None) or found["rest"], Ext)


def test_any_and_object_are_untyped() -> None:
    assert is_untyped(Any) and is_untyped(object) and not is_untyped(int)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ([1, "a", [None, {"b": b"c"}]], True),
        ([(1,)], False),
        ([{1: 2}], True),
        ([{(1,): 2}], False),
        ([[{"a": {2}}]], False),
        ([2.5, True], True),
    ],
)
def test_values_that_messagepack_keeps(value: list[Any], plain: bool) -> None:
    assert is_plain(value) is plain


leaves = st.none() | st.integers() | st.text(max_size=3) | st.just((1,)) | st.just({2})
parts = st.recursive(
    leaves,
    lambda part: (
        st.lists(part, max_size=6)
        | st.dictionaries(st.integers() | st.just((1,)), part, max_size=6)
    ),
    max_leaves=30,
)


@examples(200)
@given(parts)
def test_one_value_is_plain_as_a_list_of_it_is(value: Any) -> None:
    assert is_plain_value(value) == is_plain([value])


def test_values_that_contain_themselves_are_not_plain() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert not is_plain(loop) and not is_plain_value(loop)


async def awaited_by_nobody() -> None: ...


def test_a_coroutine_is_refused_with_what_to_do() -> None:
    coroutine = awaited_by_nobody()
    for refuse in (encode_other, tag_walked):
        with pytest.raises(TypeError, match=r"coroutine cannot travel; .* not async def"):
            refuse(coroutine)
    coroutine.close()
