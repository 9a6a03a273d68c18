"""Helpers for tests of bodies, and a strategy for any JSON value."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from jetmap.dispatch.memory import Memory
from jetmap.settings import LimitSettings
from jetmap.wire.split import Splitter
from jetmap_api.admission import Admission, Reservation

LIMITS = LimitSettings(
    max_body_bytes=1 << 30,
    max_item_bytes=900_000,
    max_list=10_000_000,
    max_depth=500,
    max_buffer_bytes=16 << 20,
    max_spool_bytes=1 << 30,
    max_total_spool_bytes=1 << 34,
    max_memory_bytes=1 << 34,
    max_open_maps=1000,
    max_items=50_000_000,
)


def held(limits: LimitSettings = LIMITS) -> Reservation:
    """The books of a request of its own."""
    return Reservation(Admission(limits), Memory(limits.memory_budget()))


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('[]{},"\\ aü\N{GRINNING FACE}\n')
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)


def feed(splitter: Splitter, data: bytes) -> list[bytes]:
    """Feed bytes; return the elements that are complete now."""
    splitter.feed(data)
    return _completed(splitter)


def close(splitter: Splitter) -> list[bytes]:
    """End the input; return the elements that are complete now."""
    splitter.close()
    return _completed(splitter)


def _completed(splitter: Splitter) -> list[bytes]:
    found: list[bytes] = []
    while some := splitter.next_elements():
        found += map(bytes, some)
    return found


def run(coroutine: Any) -> Any:
    """The result of a coroutine that only yields to the loop."""
    while True:
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value
