"""The gate of one function: when it is open, and what its maps wait for."""

from __future__ import annotations

from jetmap.dispatch.gate import FUNCTION_PAUSE, POOL_PAUSE, Gate
from jetmap.wire.controls import FunctionControl


def test_a_gate_closes_at_its_share_and_wakes_whoever_waits_for_it() -> None:
    woken: list[int] = []
    gate = Gate("f", on_free=lambda: woken.append(gate.out))
    assert gate.is_open and gate.limit is None
    gate.declared = 3
    assert (gate.limit, gate.is_open) == (3, False)  # It has no share yet.
    gate.control, gate.share = FunctionControl(max_parallel=2), 2
    gate.out = 1
    assert gate.limit == 2 and gate.is_open
    gate.out = 2
    assert (gate.is_open, gate.waits) == (False, "a limit of its function")
    gate.on_landed()
    assert gate.is_open and not woken
    gate.is_yielding = True
    gate.on_landed()
    assert woken == [0]


def test_a_pause_comes_before_a_limit_and_the_pools_before_its_own() -> None:
    gate = Gate("f")
    gate.control = FunctionControl(True, 1)
    gate.share = 1
    assert (gate.is_open, gate.waits) == (False, FUNCTION_PAUSE)
    assert "`jetmap function f --resume`" in gate.reason
    gate.pool_paused = True
    assert gate.waits == POOL_PAUSE and "`jetmap pool --resume`" in gate.reason


def test_nothing_is_sent_while_others_may_use_the_share() -> None:
    gate = Gate("f", is_seated=lambda: False)
    assert gate.is_open
    gate.declared, gate.share = 1, 1
    assert not gate.is_open
