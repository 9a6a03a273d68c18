"""The metadata of a setting."""

from __future__ import annotations

import dataclasses

from jetmap.settings.metadata import KEY, Setting, setting


@dataclasses.dataclass
class Example:
    size: int = setting(7, "Bytes of it.", help="Size.", metavar="N")
    names: list[str] = setting(["a"])


def test_a_field_carries_its_metadata() -> None:
    field, _ = dataclasses.fields(Example)
    assert field.metadata[KEY] == Setting("Bytes of it.", help="Size.", metavar="N")
    assert Example().size == 7


def test_a_list_is_not_shared() -> None:
    Example().names.append("b")
    assert Example().names == ["a"]
