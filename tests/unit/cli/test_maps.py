"""`jetmap maps` without a broker."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

from activities import activity, map_of
from jetmap.cli.exits import Exit
from jetmap.cli.maps import chosen
from jetmap.errors import ConfigurationError
from jetmap.wire.activity import ActivityAnswer

Invoke = Callable[..., Result]


def test_open_maps_are_listed_and_steered(cluster: Any, invoke: Invoke) -> None:
    labels = {"customer": "7"}
    maps = [
        map_of("a_1", labels=labels),
        map_of("a_2", function="g"),
        map_of("job1", kind="job", labels=labels),
        map_of("over", ended=1.0),
    ]
    cluster.watch.hear(activity(maps=maps))
    listed = json.loads(invoke("maps", "--json").stdout)
    assert {row["id"] for row in listed} == {"a_1", "a_2", "job1"}
    found = json.loads(invoke("maps", "--json", "--label", "customer=7").stdout)
    assert {row["id"] for row in found} == {"a_1", "job1"}
    long = map_of("a-long-id-that-no-line-cuts", function="h" * 60, labels={"team": "x" * 60})
    cluster.watch.hear(activity(sequence=2, maps=[*maps, long]))
    assert long.id in invoke("maps", "--label", "team=" + "x" * 60).stdout
    assert "a_2" in invoke("maps", "--function", "g").stdout
    assert "no map is open" in invoke("maps", "--function", "h").stdout

    assert "map a_2 of g is paused" in invoke("maps", "_2", "--pause").stderr
    invoke("maps", "a_1", "--max-parallel", "3")
    invoke("maps", "a_1", "--cancel")
    assert cluster.watch.asked == [("pause", "a_2", 0), ("limit", "a_1", 3), ("cancel", "a_1", 0)]
    invoke("maps", "job1", "--resume")
    assert "has no limit of its own" in invoke("maps", "job1", "--max-parallel", "0").stderr
    assert cluster.steered == [("pause", "job1"), ("limit", "job1", None)]

    cluster.watch.answer = ActivityAnswer(refusal="map a_1 has ended, or is not here")
    gone = invoke("maps", "a_1", "--pause")
    assert (gone.exit_code, "has ended" in gone.output) == (Exit.USAGE, True)
    assert "name the map" in invoke("maps", "--pause").output


def test_an_id_may_be_cut_but_must_be_one_maps() -> None:
    rows = [{"id": "xa"}, {"id": "ya"}, {"id": "a"}]
    assert chosen(rows, "a") == {"id": "a"} and chosen(rows, "xa") == {"id": "xa"}
    with pytest.raises(ConfigurationError, match="2 open maps end with it: xa, ya"):
        chosen(rows[:2], "a")
    with pytest.raises(ConfigurationError, match="no map of this id is open; open now: none"):
        chosen([], "z")
