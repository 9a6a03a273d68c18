"""The controls of a pool, and the keys that hold them, on both brokers."""

from __future__ import annotations

import pytest

from jetmap.nats.broker import Broker
from jetmap.wire import pool_streams
from jetmap.wire.controls import FunctionControl, PoolControl, read_control, write_json
from jetmap.wire.pool_streams import read_key, seats_key, write_key

pytestmark = pytest.mark.anyio


def test_only_what_is_steered_is_kept() -> None:
    control = PoolControl().steered("f", paused=True).steered("g", max_parallel=2)
    assert control.of("f") == FunctionControl(True) and control.of("h") == FunctionControl()
    assert read_control(write_json(control)) == control
    both = control.steered("g", paused=True)
    assert both.of("g") == FunctionControl(True, 2)
    assert both.steered("g", paused=False) == control
    assert control.steered("f", paused=False).steered("g", max_parallel=None) == PoolControl()
    assert control.steered(None, paused=True).steered("f", paused=False).paused


async def test_a_key_is_written_by_compare_and_set(c: Broker) -> None:
    assert await read_key(c, "p", "control") == (b"", 0)
    first = await write_key(c, "p", "control", b"1", 0)  # Makes the bucket, too.
    assert first is not None
    assert await write_key(c, "p", "control", b"2", 0) is None
    second = await write_key(c, "p", "control", b"2", first)
    assert await read_key(c, "p", "control") == (b"2", second)


async def test_any_function_has_a_key(c: Broker) -> None:
    for name in ("a.b", "constructor", "größe", "x-y_z"):
        key = seats_key(name)
        revision = await write_key(c, "p", key, name.encode(), 0)
        assert await pool_streams.read_key(c, "p", key) == (name.encode(), revision)
