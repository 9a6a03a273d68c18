"""Changes that people make to a job."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap import bounds
from jetmap.jobs import transitions
from jetmap.jobs.changes import JobChanges, new_values
from jetmap.jobs.record import Record

RECORD = Record(
    id="j", function="f", format="json", total=10, labels={"team": "a", "customer": "7"}
)
names = st.text("abc", min_size=1, max_size=2)


def after(record: Record = RECORD, **changes: Any) -> Record:
    return transitions.steered(record, new_values(record, cast(JobChanges, changes)))


def test_what_is_not_named_stays() -> None:
    assert after() is RECORD
    limited = after(max_parallel=3)
    assert (limited.max_parallel, limited.max_failed) == (3, None)
    tolerant = after(limited, max_failed="5%")
    assert (tolerant.max_parallel, tolerant.max_failed) == (3, "5%")
    assert after(tolerant, max_failed="5%", max_parallel=3) is tolerant
    assert after(tolerant, max_failed=7).max_failed == "7"
    assert after(tolerant, max_failed=None, max_parallel=None) == RECORD


@examples(50)
@given(st.dictionaries(names, names), st.dictionaries(names, st.none() | names))
def test_labels_are_merged(labels: dict[str, str], changes: dict[str, str | None]) -> None:
    record = transitions.steered(RECORD, {"labels": labels})
    found = {name: changes.get(name, labels.get(name)) for name in {*labels, *changes}}
    expected = {name: value for name, value in found.items() if value is not None}
    if len(expected) > bounds.MOST_LABELS:
        with pytest.raises(ValueError, match="too many"):
            after(record, labels=changes)
    else:
        assert after(record, labels=changes).labels == expected
    assert after(record, labels=None).labels == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"max_paralel": 1},
        {"max_parallel": 0},
        {"max_parallel": True},
        {"max_parallel": "3"},
        {"max_failed": -1},
        {"max_failed": "x"},
        {"max_failed": 1.5},
        {"labels": {"a b": "1"}},
        {"labels": {"a b": None}},
        {"labels": {"a=b": None}},
        {"labels": {1: None}},
        {"labels": {"a": 1}},
        {"labels": {"a": "1,2"}},
        {"labels": ["a"]},
        {"labels": "a=1"},
    ],
)
def test_a_wrong_value_changes_nothing(changes: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        after(**changes)


def test_a_share_needs_a_known_number() -> None:
    unknown = Record(id="j", function="f", format="json")
    assert after(unknown, max_failed=5).max_failed == "5"
    with pytest.raises(ValueError, match="length is not known"):
        after(unknown, max_failed="5%")
