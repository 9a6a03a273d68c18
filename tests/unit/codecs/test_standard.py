"""Kinds of the standard library that must be refused, or are odd. Others: ``test_walk.py``."""

from __future__ import annotations

import zoneinfo
from pathlib import Path

import pytest

from jetmap.codecs.walk import tag


def test_a_zone_without_a_name_is_refused() -> None:
    root = next(Path(root) for root in zoneinfo.TZPATH if Path(root, "UTC").is_file())
    with (root / "UTC").open("rb") as file:
        nameless = zoneinfo.ZoneInfo.from_file(file)
    with pytest.raises(TypeError, match="make it by its name"):
        tag(nameless)


@pytest.mark.parametrize("shape", [(2, 2), (4,)])
def test_memory_of_several_dimensions(shape: tuple[int, ...]) -> None:
    view = memoryview(bytes(4)).cast("B", shape)
    if len(shape) == 1:
        assert tag(view) is not None
    else:
        with pytest.raises(TypeError):
            tag(view)
