"""The spec of a map: what its chunks carry, and what the function's announcement fills in."""

from __future__ import annotations

import msgspec

from jetmap.dispatch.map_spec import MapSpec
from jetmap.wire.messages import BatchTerms, FunctionRef
from jetmap.wire.presence import FunctionInfo

SPEC = MapSpec(function="f", format="json")


def test_each_chunk_carries_the_parameters_and_a_function_that_travels_by_value() -> None:
    spec = msgspec.structs.replace(SPEC, kwargs=b"12345")
    assert SPEC.overhead == 0 and spec.overhead == 5
    by_name = msgspec.structs.replace(spec, ref=FunctionRef("tasks", "f"))
    by_value = msgspec.structs.replace(spec, ref=FunctionRef("__main__", "f", value=b"123"))
    assert (by_name.overhead, by_value.overhead) == (5, 8)


def test_the_announcement_fills_in_what_the_caller_left_open() -> None:
    info = FunctionInfo(name="f", timeout=5.0, attempts=3, max_parallel=4, batch=64, linger=0.1)
    spec = SPEC.completed(info)
    assert (spec.item_timeout, spec.attempts, spec.together) == (5.0, 3, 4)
    assert spec.batch == BatchTerms(64, 0.1)
    given = msgspec.structs.replace(SPEC, item_timeout=1.0, attempts=1, together=2)
    kept = given.completed(info)
    assert (kept.item_timeout, kept.attempts, kept.together) == (1.0, 1, 2)


def test_a_function_that_takes_one_item_has_no_batches() -> None:
    spec = msgspec.structs.replace(SPEC, batch=BatchTerms(64, 0.1))
    assert spec.completed(FunctionInfo(name="f")).batch is None


def test_nothing_is_copied_where_nothing_is_open() -> None:
    assert SPEC.completed(FunctionInfo(name="f")) is SPEC
    assert SPEC.completed(None) is SPEC


def test_a_function_that_the_caller_brings_is_not_the_announced_one() -> None:
    spec = msgspec.structs.replace(SPEC, ref=FunctionRef("tasks", "f"))
    assert spec.completed(FunctionInfo(name="f", timeout=5.0)) is spec
