"""A value that nests too deep, or holds itself, is an item's error that says what to do."""

from __future__ import annotations

from typing import Any

import pytest

from jetmap import Cluster, Unencodable, task

pytestmark = pytest.mark.anyio

TOLD = ("nests too deep", "or holds itself", "levels are the limit", "Return it flatter")


@task(name="nested")
def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    if levels < 0:
        value.append(value)
    for _ in range(levels):
        value = [value]
    return value


async def test_in_python(inline: Cluster) -> None:
    flat, error, own = await inline.map(nested, [2, 50_000, -1], return_exceptions=True)
    assert flat == [[[]]]
    assert isinstance(error, Unencodable)
    assert (error.index, error.type) == (1, "RecursionError")
    assert all(words in error.message for words in TOLD)
    assert isinstance(own, list) and own[0][0] is own[0]  # Pickles can hold themselves.
