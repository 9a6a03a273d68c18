"""A forked child of a worker: it may compute and print, but never sends for its parent."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from typing import NoReturn


def end(error: BaseException | None) -> NoReturn:
    """End this forked child, which has left the user's function, as multiprocessing does.

    Its exit code is 0, that of the ``SystemExit``, or 1 after a traceback on stderr.
    """
    code = 0
    try:
        try:
            for thread in threading.enumerate():
                if thread is not threading.current_thread() and not thread.daemon:
                    thread.join()
            code = _code(error)
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
    except BaseException:
        code = code or 1
    finally:
        os._exit(code)


def _code(error: BaseException | None) -> int:
    if error is None:
        return 0
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        print(error.code, file=sys.stderr)  # noqa: T201
        return 1
    traceback.print_exception(error)
    return 1


class NoPipe:
    """A forked child's end of the pipe. A child that uses it has left the user's code, and ends."""

    def send(self, kind: bytes, payload: bytes) -> NoReturn:
        end(None)

    def receive(self) -> NoReturn:
        end(None)

    def close(self) -> None:
        """Do nothing: no pipe is open."""
