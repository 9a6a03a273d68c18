"""A task that cannot be used fails alone, not the whole file."""

from __future__ import annotations

import textwrap
from pathlib import Path

import httpx
import pytest

from jetmap import Cluster, ItemInvalid, WorkerStartFailed
from served import served
from waiting import PATIENCE

pytestmark = pytest.mark.anyio

GOOD = """
    @task
    def unusable_twice(n: int) -> int:
        return 2 * n
"""
BAD = """
    from jetmap import task

    class Alien: ...

    @task
    def unusable_hold(alien: Alien) -> int:
        return 1

    @task
    def unusable_give(n: int) -> "Nothing":
        return n
"""


async def test_the_others_of_its_file_work(tmp_path: Path) -> None:
    file = tmp_path / "partly_usable.py"
    file.write_text(textwrap.dedent(BAD) + textwrap.dedent(GOOD), encoding="utf-8")
    async with Cluster(tasks=[str(file)], share=False, cores=1) as cluster:
        assert await cluster.map("unusable_twice", [1, 2]) == [2, 4]
        refusals = {each.info.name: each.info.refusal for each in cluster.functions}
        assert refusals["unusable_twice"] == ""
        assert f"{file}:6: " in refusals["unusable_hold"]
        assert "Alien cannot travel" in refusals["unusable_hold"]
        assert "'Nothing' is not defined" in refusals["unusable_give"]
        (error,) = await cluster.map("unusable_hold", [1], return_exceptions=True)
        assert isinstance(error, ItemInvalid) and "Alien cannot travel" in error.message
        async with served(cluster) as port, httpx.AsyncClient(timeout=PATIENCE) as client:
            root = f"http://127.0.0.1:{port}"
            answer = await client.post(f"{root}/map/unusable_hold", json=[1])
            assert answer.status_code == 422 and "Alien cannot travel" in answer.json()["detail"]
            (listed,) = [
                each
                for each in (await client.get(f"{root}/functions")).json()
                if each["name"] == "unusable_hold"
            ]
            assert "Alien cannot travel" in listed["refusal"]
            assert (await client.get(f"{root}/openapi.json")).status_code == 200


async def test_a_file_with_nothing_usable_does_not_start(tmp_path: Path) -> None:
    file = tmp_path / "not_usable.py"
    file.write_text(textwrap.dedent(BAD), encoding="utf-8")
    with pytest.raises(WorkerStartFailed, match=r"unusable_give .* is not defined"):
        async with Cluster(tasks=[str(file)], share=False, cores=1):
            pass
