"""The part that all splitters share: gathering, and the end of the input."""

from __future__ import annotations

from jetmap.settings import LimitSettings
from jetmap.wire.split.splitter import NEED_DATA, Elements, Splitter, item_too_large


class Pairs(Splitter):
    """Splits into pairs of bytes."""

    step = 4

    def _split(self, data: bytes) -> Elements:
        data = self._tail + data
        end = len(data) - len(data) % 2
        self._tail = data[end:]
        return [data[at : at + 2] for at in range(0, end, 2)]


def test_less_than_a_step_waits_until_more_is_fed_or_the_input_ends() -> None:
    pairs = Pairs(LimitSettings())
    pairs.feed(b"abc")
    assert pairs.next_elements() is NEED_DATA
    pairs.feed(b"de")
    assert pairs.next_elements() == [b"ab", b"cd"]
    assert pairs.next_elements() is NEED_DATA
    pairs.feed(b"f")
    pairs.close()
    assert pairs.next_elements() == [b"ef"]
    assert pairs.next_elements() is NEED_DATA


def test_need_data_ends_a_loop() -> None:
    assert not NEED_DATA


def test_an_item_that_is_too_large_is_named() -> None:
    error = item_too_large(3, 200, 100, line=4)
    assert "item 3 in line 4 is 200 bytes or more" in str(error) and "max_item_bytes" in str(error)
    assert (error.index, error.value, error.limit) == (3, 200, 100)
