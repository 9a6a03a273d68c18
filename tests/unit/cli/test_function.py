"""`jetmap function` without a broker."""

from __future__ import annotations

import json
from collections.abc import Callable

from typer.testing import Result

from fake_cluster import FakeCluster
from jetmap.cli.exits import Exit
from jetmap.wire.controls import FunctionControl, PoolControl

Invoke = Callable[..., Result]


def test_a_function_is_shown_and_steered(cluster: FakeCluster, invoke: Invoke) -> None:
    assert "2 have it" in invoke("function", "double").stdout
    assert "paused    until jetmap function double --resume" in (
        invoke("function", "double", "--pause").stdout
    )
    assert "limit     3 cores" in invoke("function", "double", "--max-parallel", "3").stdout
    assert cluster.control == PoolControl(functions={"double": FunctionControl(True, 3)})
    shown = json.loads(invoke("function", "double", "--resume", "--json").stdout)
    assert (shown["paused"], shown["max_parallel"], shown["cores"]) == (False, 3, 2)
    invoke("function", "double", "--max-parallel", "0")
    assert cluster.control == PoolControl()
    cluster.max_parallel["double"] = 4
    assert "limit     4 cores, as its code says" in invoke("function", "double").stdout
    both = invoke("function", "double", "--max-parallel", "3").stdout
    assert "limit     3 cores; its code says 4" in both
    shown = json.loads(invoke("function", "double", "--json").stdout)
    assert (shown["max_parallel"], shown["max_parallel_in_code"]) == (3, 4)
    assert invoke("function", "none", "--pause").exit_code == Exit.WORKERS
    refused = invoke("function", "double", "--pause", "--resume")
    assert refused.exit_code == Exit.USAGE and "exclude each other" in refused.output
    assert invoke("function", "double", "--max-parallel", "-1").exit_code == Exit.USAGE
