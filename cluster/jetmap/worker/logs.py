"""Logging for functions that do not configure it themselves."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from jetmap.logs import JsonFormatter

from .lines import RECORD


class _StderrHandler(logging.Handler):
    """Write records to the current ``sys.stderr``."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self._prefix = prefix

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self._prefix + self.format(record), file=sys.stderr)  # noqa: T201
        except Exception:
            self.handleError(record)


def mark_records(map: Callable[[], str], item: Callable[[], int | None]) -> None:
    """Give each record the attributes ``jetmap_map``, ``jetmap_item`` and ``jetmap_trace``.

    They are empty or None for records outside of items. A trace has an id while a chunk with one is
    computed, whether or not it is sampled.
    """
    make = logging.getLogRecordFactory()

    def marked(*args: Any, **more: Any) -> logging.LogRecord:
        record = make(*args, **more)
        record.jetmap_item = number = item()
        record.jetmap_map = "" if number is None else map()
        record.jetmap_trace = ""
        # Without this module no chunk of a trace has come.
        if (tracing := sys.modules.get("jetmap.tracing")) is not None:
            record.jetmap_trace = tracing.trace_id()
        return record

    logging.setLogRecordFactory(marked)


def show_logs(level: str, form: str = "text") -> None:
    """Show records from ``level`` on where the function's code has no handlers.

    Python's handler of last resort is replaced, and no handler is added: a function's own
    ``basicConfig``, now or later, still takes effect.
    """
    handler: Any = _StderrHandler(RECORD if form == "json" else "")
    text = logging.Formatter("%(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if form == "json" else text)
    logging.lastResort = handler
    logging.getLogger().setLevel(level.upper())
