"""The metadata of a setting, from which its option, comment and table row are generated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

KEY = "setting"  # Key of a field's metadata.


@dataclass(frozen=True)
class Setting:
    """Texts and flags of one setting.

    Attributes:
        comment: Text above its key in ``config/jetmap.toml``; empty if the comment above covers
            it, too.
        help: Help of its command-line option; empty if it has none.
        metavar: Placeholder of the option's value; None for a switch.
        flag: The option's name, if it differs from the setting's.
        panel: Group in ``--help``, if it differs from the section's.
        positional: Whether it is an argument instead of an option.
        limit: What it limits and what happens beyond, for the README's table; empty for no row.
        shown: Default in that table, if the setting has none.
        unit: Text after the default in that table.
        keeper: "agree" if the users of one embedded cluster must have the same value, "starter" if
            the first user's value holds for all.
        secret: Whether it names a file that only its owner should read.
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
    """Declare a field of a section; ``more`` are other attributes of ``Setting``."""
    metadata = {KEY: Setting(comment, **more)}
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)
