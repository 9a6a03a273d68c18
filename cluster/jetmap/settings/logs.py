"""The settings of the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from .metadata import Section, setting

# The level of a keeper's own log unless log_level is given: its users read results, not a log.
KEEPER_LOG_LEVEL = "warning"


@dataclass(frozen=True)
class LogSettings(Section):
    """The log."""

    title: ClassVar[str] = "Logs"

    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info",
        '"debug", "info", "warning" or "error". An embedded cluster, which may have many users, '
        "logs warnings and errors unless the user who starts it sets this.",
        help="debug, info, warning or error.",
        metavar="LEVEL",
        keeper="starter",
    )
    log_format: Literal["text", "json"] = setting(
        "text",
        '"text", or "json": each line is an object with time, level, logger and message, and map, '
        "item and trace where it belongs to an item. What functions print is wrapped, too.",
        help="text or json.",
        metavar="FORMAT",
        keeper="starter",
    )
