"""Outcomes on their way to the reader."""

from __future__ import annotations

from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.dispatch.outcomes import Batch, Decoded, Outcome, Reorder, decoded, item_error
from jetmap.errors import ItemError, ItemRaised, WorkerLost
from jetmap.wire.messages import ErrorRecord

quick = examples(60)


@quick
@given(st.lists(st.integers(1, 5), max_size=20), st.randoms())
def test_batches_leave_in_input_order(counts: list[int], random: Random) -> None:
    batches, start = [], 0
    for count in counts:
        batches.append(Batch(start, count, msgspec.json.encode(list(range(start, start + count)))))
        start += count
    shuffled = list(batches)
    random.shuffle(shuffled)

    reorder, given_out, early = Reorder(), list[Batch](), set[int]()
    for batch in shuffled:
        early.add(batch.start)
        ready = reorder.add(batch)
        given_out += ready
        early -= {b.start for b in ready}
        # Nothing waits that could go, and what waits is accounted for.
        end = sum(b.count for b in given_out)
        assert end not in early
        assert reorder.size == sum(b.size for b in batches if b.start in early)

    assert given_out == batches
    assert reorder.size == 0


def test_a_batch_takes_more_memory_than_its_parts() -> None:
    error = ErrorRecord(1, "raised", "ValueError", "m" * 1000, "t" * 1000)
    assert Batch(0, 1, b"0" * 500).size > 500
    assert Batch(0, 1, b"", [error]).size > 2000


def test_values_are_left_to_a_reader_who_has_to_look_at_them() -> None:
    found = decoded(b"[1, 2]", msgspec.json.decode)
    assert isinstance(found, Decoded) and (found.values, len(found)) == ([1, 2], 6)
    assert decoded(b"[1, 2]", lambda data: None) == b"[1, 2]", "they share the bytes"
    assert decoded(b"[1, 2", msgspec.json.decode) == b"[1, 2", "one does not fit"


def test_an_outcome_is_a_value_or_raises_its_error() -> None:
    good, bad = Outcome(3, "x", 7, None), Outcome(4, "y", None, ItemRaised(4, "E", "m"))
    assert (good.ok, good.value) == (True, 7)
    assert not bad.ok
    with pytest.raises(ItemRaised):
        bad.value  # noqa: B018
    assert repr(good) == "Outcome(index=3, item='x', value=7)"
    assert "error=ItemRaised(" in repr(bad)


def test_a_record_becomes_the_error_of_its_kind() -> None:
    lost = item_error(ErrorRecord(2, "lost", "WorkerLost", "gone", None, {"signal": 9}))
    assert isinstance(lost, WorkerLost) and lost.index == 2
    assert type(item_error(ErrorRecord(2, "new", "T", "m"))) is ItemError  # type: ignore[arg-type]
