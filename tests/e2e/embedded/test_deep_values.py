"""A value that nests too deep, or holds itself, is an item's error that says what to do."""

from __future__ import annotations

from typing import Any

import pytest

from fake_cluster import gateway
from jetmap import Cluster, Unencodable, task
from over_http import MSGPACK, check_problem

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
    flat, *deep = await inline.map(nested, [2, 5000, -1], return_exceptions=True)
    assert flat == [[[]]]
    for index, error in enumerate(deep, 1):
        assert isinstance(error, Unencodable)
        assert (error.index, error.type) == (index, "RecursionError")
        assert all(words in error.message for words in TOLD)


@pytest.mark.parametrize("headers", [{}, MSGPACK])
async def test_over_http(inline: Cluster, headers: dict[str, str]) -> None:
    body = b"\x92\x02\xcd\x13\x88" if headers else b"[2, 5000]"
    headers = {"content-type": "application/json", **headers}
    async with gateway(inline) as client:  # type: ignore[arg-type]
        response = await client.post("/map/nested", content=body, headers=headers)
    problem = check_problem(response, 500, "item-unencodable")
    assert problem["error"]["index"] == 1
    assert all(words in problem["detail"] for words in TOLD)
