"""Numbers and shares of items that may fail, decided without a map."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap import bounds
from jetmap.dispatch.tolerance import SHOWN, FailureCount, Tolerance
from jetmap.errors import ItemRaised, TooManyFailed
from jetmap.wire.messages import ErrorRecord


def error(index: int) -> ErrorRecord:
    return ErrorRecord(index, "raised", "ValueError", f"no {index}")


@pytest.mark.parametrize("most", [0, 10**15, int(bounds.START.most)])
def test_a_number_is_read_again_from_its_text(most: int) -> None:
    assert Tolerance(Tolerance(most).text).limit(None) == most


def test_another_tolerance_counts_from_then_on() -> None:
    count = FailureCount(None, 10)
    count.add([error(3), error(1)], 4)
    count.tolerance = Tolerance(2)
    count.check(4)
    count.tolerance = Tolerance(1)
    with pytest.raises(TooManyFailed, match="item 1: "):
        count.add((), 5)
    assert count.exceeded is count.tolerance


@examples(200)
@given(
    st.integers(0, 30) | st.integers(0, 100).map(lambda n: f"{n}%"),
    st.lists(st.integers(0, 40), max_size=40, unique=True),
    st.integers(40, 60),
)
def test_one_more_than_may_fail_is_too_many(most: Any, failing: list[int], total: int) -> None:
    tolerance = Tolerance(most)
    limit = most if isinstance(most, int) else total * int(most[:-1]) // 100
    assert tolerance.limit(total) == limit and tolerance.is_share is isinstance(most, str)
    count = FailureCount(tolerance, total)
    for number, index in enumerate(failing, 1):
        if number <= limit:
            count.add([error(index)], number)
            continue
        with pytest.raises(TooManyFailed) as caught:
            count.add([error(index)], number)
        found = caught.value
        assert (found.failed, found.done, found.total) == (number, number, total)
        first = sorted(failing[:number])[:SHOWN]
        assert [each.index for each in found.errors] == first
        assert all(isinstance(each, ItemRaised) for each in found.errors)
        assert all(f"item {index}: ValueError: no {index}" in str(found) for index in first)
        assert ("more" in str(found)) is (number > SHOWN)
        again = pickle.loads(pickle.dumps(found))
        assert (again.failed, str(again)) == (found.failed, str(found))
        break


@pytest.mark.parametrize(
    ("value", "limit"),
    [(0, 0), ("7", 7), ("0%", 0), ("100%", 200), ("2.5%", 5), ("5.5%", 11), ("0.4%", 0)],
)
def test_numbers_and_shares_of_two_hundred(value: Any, limit: int) -> None:
    tolerance = Tolerance(value)
    assert tolerance.limit(200) == limit
    assert Tolerance(tolerance.text).limit(200) == limit


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "%",
        "-1",
        "101%",
        "5 percent",
        "1e3",
        "5%%",
        "5 %",
        " 5",
        "5\n",
        "100.1%",
        "1" * 17,
        "\u0665",
        -1,
        1.5,
    ],
)
def test_other_values_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="max_failed must be a"):
        Tolerance(wrong)


@pytest.mark.parametrize("wrong", [True, None, b"5%", [5]])
def test_other_types_are_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="max_failed must be a whole number"):
        Tolerance(wrong)
    assert Tolerance.of(None) is None


def test_a_share_is_exact() -> None:
    # As binary fractions, 0.57 % of ten thousand would be rounded down to 56.
    assert [Tolerance(f"0.{n:02}%").limit(10_000) for n in range(100)] == list(range(100))


def test_a_share_needs_a_length() -> None:
    Tolerance("5%").check_length(0)
    Tolerance(5).check_length(None)
    with pytest.raises(ValueError, match="max_failed='5%' is a share of an input whose length"):
        Tolerance("5%").check_length(None)


def test_failures_of_an_earlier_owner_count() -> None:
    count = FailureCount(Tolerance(2), 10, 2)
    count.add((), 5)
    with pytest.raises(TooManyFailed, match="3 of 10 items failed, 6 were done; max_failed is 2"):
        count.add([error(4)], 6)
    with pytest.raises(TooManyFailed):
        FailureCount(Tolerance("10%"), 10, 2).add((), 5)
