"""`jetmap pool` without a broker."""

from __future__ import annotations

import json
from collections.abc import Callable

from typer.testing import Result

from announcements import presence
from fake_cluster import FakeCluster
from jetmap.wire.controls import PoolControl
from jetmap.wire.presence import FunctionInfo

Invoke = Callable[..., Result]


def test_the_pool_is_shown_and_steered(cluster: FakeCluster, invoke: Invoke) -> None:
    cluster.control = PoolControl().steered("double", paused=True)
    others = [FunctionInfo("scan", max_parallel=8), FunctionInfo("add")]
    cluster.watch.hear(
        agents=[
            presence("a", offer="a", functions=[FunctionInfo("double", max_parallel=4)]),
            presence("b", offer="b", functions=others),
            presence("c", offer="c", functions=[FunctionInfo("x\x9b", max_parallel=1)]),
        ]
    )
    said = invoke("pool", "--pause").stdout
    assert "paused    until jetmap pool --resume" in said
    assert "paused    until jetmap function double --resume" in said
    assert json.loads(invoke("pool", "--json").stdout) == {
        "pool": "default",
        "paused": True,
        "functions": {
            "double": {"paused": True, "max_parallel": 4, "max_parallel_in_code": 4},
            "scan": {"paused": False, "max_parallel": 8, "max_parallel_in_code": 8},
            "x\x9b": {"paused": False, "max_parallel": 1, "max_parallel_in_code": 1},
        },
    }
    assert "function  x\\x9b\n" in said
    assert "function  scan\nlimit     8 cores, as its code says" in said
    assert "jetmap pool --resume" not in invoke("pool", "--resume").stdout
    assert not cluster.control.paused
