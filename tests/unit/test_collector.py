"""Imports without the garbage collector, in a process that may be a user's."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from jetmap.collector import without_collector


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    was_on = gc.isenabled()
    yield
    gc.enable() if was_on else gc.disable()


@pytest.mark.parametrize("is_on", [True, False])
def test_the_collector_is_off_inside_and_then_as_it_was(is_on: bool) -> None:
    gc.enable() if is_on else gc.disable()
    frozen = gc.get_freeze_count()
    with pytest.raises(ImportError), without_collector():
        assert not gc.isenabled()
        raise ImportError("no such module")
    assert gc.isenabled() is is_on
    assert gc.get_freeze_count() == frozen, "the objects of a user are not ours"
