"""A module that calls an executor when it is imported, as an unguarded script would."""

from __future__ import annotations

import calls
from jetmap import Executor

RESULT = Executor(1).submit(calls.add, 1, 2).result()


def result() -> int:
    return RESULT
