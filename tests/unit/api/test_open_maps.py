"""Open maps over HTTP: listed by label, and steered."""

from __future__ import annotations

import pytest

from activities import activity, map_of
from fake_cluster import FakeCluster, gateway
from jetmap.wire.activity import ActivityAnswer
from over_http import check_problem

pytestmark = pytest.mark.anyio


async def test_open_maps_are_listed_by_label_and_function() -> None:
    cluster = FakeCluster()
    maps = [
        map_of("m1", labels={"customer": "7", "team": "a"}),
        map_of("m2", labels={"customer": "8"}, function="g"),
        map_of("m3", labels={"customer": "7"}, ended=3.0),
    ]
    cluster.watch.hear(activity(maps=maps))
    async with gateway(cluster) as client:
        for query, expected in (
            ({}, ["m1", "m2"]),
            ({"labels": "customer=7"}, ["m1"]),
            ({"labels": "customer=7,team=b"}, []),
            ({"function": "g"}, ["m2"]),
        ):
            found = (await client.get("/maps", params=query)).json()
            assert [row["id"] for row in found] == expected
        check_problem(await client.get("/maps?labels=x"), 400, "bad-parameter")
        check_problem(await client.get("/maps?state=x"), 400, "bad-parameter")


async def test_a_map_is_steered_by_whoever_runs_it() -> None:
    cluster = FakeCluster()
    async with gateway(cluster) as client:
        for action in (
            "pause",
            "limit?max_parallel=3",
            "resume",
            "limit",
            "limit?max_parallel=0",
            "cancel",
        ):
            assert (await client.post(f"/maps/m1/{action}")).status_code == 204
        asked = [("pause", "m1", 0), ("limit", "m1", 3), ("resume", "m1", 0)]
        assert cluster.watch.asked == [*asked, *[("limit", "m1", 0)] * 2, ("cancel", "m1", 0)]
        check_problem(await client.post("/maps/m1/limit?max_parallel=-1"), 400, "bad-parameter")
        cluster.watch.answer = ActivityAnswer(refusal="nobody has m1 any more")
        check_problem(await client.post("/maps/m1/pause"), 409, "map-gone")
