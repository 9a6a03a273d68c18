"""Any list, any mix of costs, any failing items; and what a loop makes of them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from functions import Parcel, weigh

INVALID = "invalid"

# Few long ones among many short ones; so chunks of all lengths, cut on wrong estimates too.
costs = st.one_of(st.just(0), st.integers(0, 200), st.sampled_from([1000, 5000, 20_000]))
values = (
    st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.text('[]{},"\\/ü\n\r\x00\u2028\N{GRINNING FACE}')
)
# A parcel of None does not fit the annotation: the worker refuses it.
_parcels = st.builds(Parcel, values | st.none(), costs, st.booleans())
good_parcels = st.builds(Parcel, values, costs)


def _many(count: int, some: list[Parcel], every: int, micros: int, bad: set[int]) -> list[Parcel]:
    """Some parcels over and over, each ``every``-th of a cost, few of them bad."""
    parcels = []
    for n in range(count):
        value: Any = None if n in bad and n % 2 else some[n % len(some)].value
        parcels.append(Parcel(value, micros if n % every == 0 else 0, n in bad))
    return parcels


# Hypothesis's own lists are short; those of several chunks are made of a few values.
lists = st.one_of(
    st.lists(_parcels, max_size=40),
    st.lists(good_parcels, max_size=60),
    st.builds(
        _many,
        st.integers(0, 4000),
        st.lists(good_parcels, min_size=1, max_size=5),
        st.integers(1, 50),
        st.sampled_from([0, 100, 1000]),
        st.sets(st.integers(0, 4000), max_size=5),
    ),
)


def in_a_loop(parcels: list[Parcel]) -> list[tuple[str, Any]]:
    """Return for each item ("value", value) or (kind, message) of its error; None: any message."""
    found: list[tuple[str, Any]] = []
    for parcel in parcels:
        if parcel.value is None:
            found.append((INVALID, None))
            continue
        try:
            found.append(("value", weigh(Parcel(parcel.value, 0, parcel.fails))))
        except ValueError as error:
            found.append(("raised", str(error)))
    return found


def same(found: tuple[str, Any], expected: tuple[str, Any]) -> bool:
    """Return whether two values are equal, in type too: 1.0 is not 1."""
    if expected[0] == INVALID:
        return found[0] == INVALID
    return found == expected and type(found[1]) is type(expected[1])
