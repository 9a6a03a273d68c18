"""The metadata of a setting, from which its option, comment and table row are generated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field
from pydantic.fields import FieldInfo

_KEY = "setting"


@dataclass(frozen=True)
class Setting:
    """Texts and flags of one setting.

    comment: above its key in ``config/jetmap.toml``; empty: the comment above covers it, too.
    help: of its command-line option; empty: it has none. metavar: None for a switch. flag: the
    option's name if it differs from the setting's. panel: the group in ``--help`` if it is not
    the section's. positional: an argument, not an option. limit: what happens beyond it, for the
    README's table; empty: it has no row there. shown: its default in that table if it is not set;
    unit: after the default. keeper: "agree" if the users of one embedded cluster must have the
    same value, "starter" if the value of the first user holds for all. secret: it names a file that
    only its owner should read.
    """

    comment: str = ""
    help: str = ""
    metavar: str | None = None
    flag: str = ""
    panel: str = ""
    positional: bool = False
    limit: str = ""
    shown: str = ""
    unit: str = ""
    keeper: Literal["", "agree", "starter"] = ""
    secret: bool = False


def setting(default: Any, comment: str = "", **more: Any) -> Any:
    """Declare a field of a section. more: the other fields of ``Setting``."""
    extra: Any = {_KEY: Setting(comment, **more)}
    return Field(default, json_schema_extra=extra)


def setting_of(field: FieldInfo) -> Setting:
    """Return the metadata that ``setting`` has attached."""
    extra: Any = field.json_schema_extra
    found: Setting = extra[_KEY]
    return found
