"""The process's standard streams, which may be closed."""

from __future__ import annotations

import os


def hold_closed() -> list[int]:
    """Open the null device for each standard stream that is closed; return their descriptors.

    Otherwise the next file or socket would get such a descriptor, and what others print would go
    there. libuv ends the process when it closes one of its own that has such a number.
    """
    held = []
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            held.append(fd)
            null = os.open(os.devnull, os.O_WRONLY)  # Reading it still fails.
            if null != fd:
                os.dup2(null, fd)
                os.close(null)
            os.set_inheritable(fd, True)
    return held
