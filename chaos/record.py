"""The record that a caller keeps of its maps.

It consists of JSON lines, each written at once, so that a caller that is killed loses none.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from pathlib import Path
from typing import Any

from .plans import Plan


class Record:
    """Times are of the monotonic clock, which all processes of a machine share."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def begin(self, plan: Plan) -> None:
        self._write(
            e="begin",
            m=plan.name,
            function=plan.function,
            way=plan.way,
            timeout=plan.timeout,
            items=plan.items,
        )

    def ticket(self, plan: Plan, job: str) -> None:
        """It was accepted as this job."""
        self._write(e="ticket", m=plan.name, job=job)

    def outcomes(self, plan: Plan, outcomes: list[list[Any]]) -> None:
        """Those that ``value`` and ``error`` give."""
        if outcomes:
            self._write(e="out", m=plan.name, o=outcomes)

    def end(self, plan: Plan, how: str, what: str = "") -> None:
        """Record the end of a map. how: done, left, timeout, raised, refused, broken or failed."""
        self._write(e="end", m=plan.name, how=how, what=what[:500])

    def _write(self, **fields: Any) -> None:
        fields["t"] = round(time.monotonic(), 4)
        os.write(self._file, json.dumps(fields, separators=(",", ":")).encode() + b"\n")


def value(index: int, value: Any) -> list[Any]:
    number, mixture, text = value
    return [index, number, mixture, len(text), zlib.crc32(text.encode())]


def error(index: int, kind: str, type: str, message: str) -> list[Any]:
    return [index, kind, type, message[:200]]
