"""`jetmap pool` without a broker."""

from __future__ import annotations

import json
from collections.abc import Callable

from typer.testing import Result

from fake_cluster import FakeCluster
from jetmap.wire.controls import PoolControl

Invoke = Callable[..., Result]


def test_the_pool_is_shown_and_steered(cluster: FakeCluster, invoke: Invoke) -> None:
    cluster.control = PoolControl().steered("double", paused=True)
    said = invoke("pool", "--pause").stdout
    assert "paused    until jetmap pool --resume" in said
    assert "paused    until jetmap function double --resume" in said
    assert json.loads(invoke("pool", "--json").stdout) == {
        "pool": "default",
        "paused": True,
        "functions": {"double": {"paused": True, "max_parallel": None}},
    }
    assert "jetmap pool --resume" not in invoke("pool", "--resume").stdout
    assert not cluster.control.paused
