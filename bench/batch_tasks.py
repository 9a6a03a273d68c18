"""Functions of batches, apart from ``tasks``: ``bench.compare`` also runs that in old checkouts."""

from __future__ import annotations

import os
import time

from jetmap import task


@task(batch=64, linger=0.005)
def batched(items: list[int]) -> list[str]:
    """One call for many items, of 10 ms; returns its own name for each."""
    time.sleep(0.01)
    return [f"{os.getpid()}.{time.monotonic_ns()}"] * len(items)
