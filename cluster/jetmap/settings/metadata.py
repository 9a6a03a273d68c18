"""The metadata of a setting, from which its option, comment and table row are generated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

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


class Section:
    """A group of settings. title: in ``config/jetmap.toml``; panel: in ``--help``."""

    title: ClassVar[str] = ""
    panel: ClassVar[str] = "More"

    def conflicts(self) -> Iterator[str]:
        """Yield what is wrong between settings of this section."""
        yield from ()

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other values. They are not checked."""
        return replace(self, **changes)  # type: ignore[type-var]


def both(name: str, other: str) -> str:
    """Say that two settings exclude each other."""
    return f"{name} and {other} are both set: keep one of them"
