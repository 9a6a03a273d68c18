"""The logging of functions, where they do not configure it themselves."""

from __future__ import annotations

import logging
import sys
from typing import Any


class _StderrHandler(logging.Handler):
    """Writes to what ``sys.stderr`` is when a record comes."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr)  # noqa: T201
        except Exception:
            self.handleError(record)


def show_logs(level: str) -> None:
    """Show records from ``level`` on where the function's code has no handlers.

    Python's handler of last resort is replaced, and no handler added: a ``basicConfig`` of the
    function's own, now or later, still takes effect.
    """
    handler: Any = _StderrHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.lastResort = handler
    logging.getLogger().setLevel(level.upper())
