"""The share of examples and of large grids that a run tries: all of them in `make test-all`.

A run with a share tries the same examples each time: whoever changed something else is not held up
by what nobody has found before. `make test-all` looks for new ones.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from typing import Any, TypeVar

from hypothesis import settings

SHARE = float(os.environ.get("EXAMPLES", "0.1"))

T = TypeVar("T")


def examples(count: int, **more: Any) -> settings:
    """Settings for ``count`` examples, or for the share of them that this run tries."""
    return settings(
        max_examples=max(1, round(count * SHARE)), derandomize=SHARE < 1, deadline=None, **more
    )


def sampled(cases: Iterable[T]) -> list[T]:
    """Return this run's share of a grid's cases, always the same ones."""
    every = list(cases)
    share = min(1.0, SHARE)
    return random.Random(0).sample(every, max(1, round(len(every) * share)))


def use_share() -> None:
    """Make 100 examples, or this run's share of them, the default of tests that name no number."""
    settings.register_profile("share", examples(100))
    settings.load_profile("share")
