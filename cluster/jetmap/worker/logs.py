"""Logging for functions that do not configure it themselves."""

from __future__ import annotations

import logging
import sys
from typing import Any


class _StderrHandler(logging.Handler):
    """Write records to the current ``sys.stderr``."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr)  # noqa: T201
        except Exception:
            self.handleError(record)


def show_logs(level: str) -> None:
    """Show records from ``level`` on where the function's code has no handlers.

    Python's handler of last resort is replaced, and no handler is added: a function's own
    ``basicConfig``, now or later, still takes effect.
    """
    handler: Any = _StderrHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.lastResort = handler
    logging.getLogger().setLevel(level.upper())
