"""Functions that get values which their caller has put."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from jetmap import task


@task
def pick(i: int, *, table: Any, seconds: float = 0.0) -> list[int]:
    """Return an element of the table, whether it could be written to, and this process."""
    time.sleep(seconds)
    assert isinstance(table, np.ndarray)
    return [int(table[i]), int(table.flags.writeable), os.getpid()]
