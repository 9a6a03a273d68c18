"""A function's prints and logs, marked with the map and item that wrote them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable


class MarkedOutput(io.TextIOBase):
    """Text that goes to the agent's stderr line by line, each line behind its mark."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, mark: Callable[[], str], fd: int = 2) -> None:
        self._mark = mark
        self._fd = fd
        self._line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        if lines:
            mark = self._mark()
            # One write for each call: lines of several workers do not mix.
            data = "".join(f"{mark} {line}\n" for line in lines)
            self._write(data)
        return len(text)

    def flush(self) -> None:
        """Nothing to do: whole lines are written at once, and the rest waits for its end."""

    def finish_line(self) -> None:
        """Writes what an item left without a newline, while its mark still holds."""
        if self._line:
            self.write("\n")

    def fileno(self) -> int:
        return self._fd

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def _write(self, data: str) -> None:
        view = data.encode(self.encoding, self.errors)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            # The agent's stderr is gone; a function must not fail for that.
            return


def redirect(mark: Callable[[], str]) -> MarkedOutput:
    """Sends stdout and stderr of this process, C code included, to its stderr."""
    os.dup2(2, 1)
    output = MarkedOutput(mark)
    sys.stdout = sys.stderr = output
    return output
