"""Split a list that arrives in pieces into raw elements, by its format."""

from __future__ import annotations

from typing import Literal

from jetmap.settings import LimitSettings

from .json_array import JsonArray
from .json_lines import JsonLines
from .msgpack_array import MsgpackArray
from .splitter import NEED_DATA, Elements, Splitter

__all__ = [
    "NEED_DATA",
    "Elements",
    "JsonArray",
    "JsonLines",
    "MsgpackArray",
    "Splitter",
    "splitter",
]


def splitter(
    format: Literal["json", "jsonl", "msgpack"], limits: LimitSettings, advice: str = ""
) -> Splitter:
    """Make the splitter of a format. advice: what to send instead of something else."""
    if format == "jsonl":
        return JsonLines(limits)
    return JsonArray(limits, advice) if format == "json" else MsgpackArray(limits, advice)
