"""The metadata of a setting."""

from __future__ import annotations

from pydantic import BaseModel

from jetmap.settings.metadata import Setting, setting, setting_of


class Example(BaseModel):
    size: int = setting(7, "Bytes of it.", help="Size.", metavar="N")


def test_a_field_carries_its_metadata() -> None:
    field = Example.model_fields["size"]
    assert setting_of(field) == Setting("Bytes of it.", help="Size.", metavar="N")
    assert Example().size == 7
