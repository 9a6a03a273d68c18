"""Format an import failure for users: a sentence, or a traceback of their own code."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from jetmap.errors import ConfigurationError, WorkerStartFailed
from jetmap.import_path import hiding_advice

from .source_files import is_users

PACKAGE = str(Path(__file__).parent.parent)
HEADER = "Traceback (most recent call last):"
IMPORTLIB = ("<frozen importlib", "<frozen runpy")


def format_import_error(error: BaseException) -> str:
    """Return jetmap's own sentence if there is one, else the traceback without jetmap's frames."""
    if isinstance(error, (ConfigurationError, WorkerStartFailed)):
        return str(error)
    described = traceback.TracebackException.from_exception(error)
    is_a_sentence = _is_ours(described) and all(map(_is_machinery, described.stack))
    if is_a_sentence:
        return str(error)
    _without_ours(described)
    if isinstance(error, SystemExit):
        return _format_exit(described)
    lines = "".join(described.format()).splitlines()
    shown = ["the import raises:", *(line for line in lines if line.strip() != HEADER)]
    if isinstance(error, ImportError | AttributeError) and (advice := hiding_advice(sys.path)):
        shown.append(f"perhaps because {advice}")
    return "\n".join(shown)


def _format_exit(described: traceback.TracebackException) -> str:
    """Say that an import ends its process, and where: in the user's file, not in ``sys.exit``."""
    stack = described.stack
    users = [
        at
        for at, frame in enumerate(stack)
        if is_users(frame.filename) and not frame.filename.startswith("<frozen")
    ]
    if users:
        del stack[users[-1] + 1 :]
    what = "".join(described.format_exception_only()).strip()
    advice = 'put what it does as a program under if __name__ == "__main__":'
    shown = [
        f"the import ends its process ({what}); {advice}",
        *"".join(stack.format()).splitlines(),
    ]
    return "\n".join(shown)


def format_syntax_error(error: SyntaxError) -> str:
    """Return file, line and message, with the source line and a caret below it."""
    # Between the file's line and the message's are the source line, if it can be read, and a caret.
    shown = "".join(traceback.format_exception_only(error)).splitlines()[1:-1]
    return "\n".join([f"{error.filename}:{error.lineno}: {error.msg}", *shown])


def _without_ours(described: traceback.TracebackException) -> None:
    if _is_ours(described):
        described.__cause__ = described.__context__ = None
    described.stack[:] = [frame for frame in described.stack if not _is_machinery(frame)]
    for other in (described.__cause__, described.__context__, *(described.exceptions or ())):
        if other is not None:
            _without_ours(other)


def _is_ours(described: traceback.TracebackException) -> bool:
    """Return whether jetmap raised it on purpose, so that its message includes the cause."""
    return bool(described.stack) and described.stack[-1].filename.startswith(f"{PACKAGE}/")


def _is_machinery(frame: traceback.FrameSummary) -> bool:
    file = frame.filename
    importing = file.startswith(IMPORTLIB) or file.endswith("/importlib/__init__.py")
    return importing or file.startswith(f"{PACKAGE}/")
