"""Import modules of ours without the garbage collector, in processes that are not ours."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collector() -> Iterator[None]:
    """Turn the garbage collector off in this block, and on again if it was on.

    While modules are imported, nearly all new objects stay, and it would visit them again and
    again. Nothing else changes for the process: unlike in ``machine.uncollected``, it may be one
    of a user.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
