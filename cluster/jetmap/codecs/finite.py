"""Refuse NaN and infinities in JSON, where encoders would write ``null`` instead."""

from __future__ import annotations

import math
from typing import Any

import msgspec


def refuse_nan(encoded: bytes, value: Any, enc_hook: Any) -> None:
    """Raise ValueError if a NaN or an infinity of ``value`` became a ``null``."""
    if b"null" not in encoded:
        return
    found = _find(msgspec.to_builtins(value, enc_hook=enc_hook))
    if found is not None:
        raise ValueError(
            f"{_name(found)} cannot be written as JSON; return None instead, or ask for MessagePack"
        )


def _name(number: float) -> str:
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _find(value: Any) -> float | None:
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, float):
            if not math.isfinite(part):
                return part
        elif isinstance(part, dict):
            waiting.extend(part.values())
        elif isinstance(part, (list, tuple, set, frozenset)):
            waiting.extend(part)
    return None
