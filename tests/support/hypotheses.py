"""The number of hypothesis' examples: a quarter of them in `make test`, all in `make test-all`."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings

SHARE = float(os.environ.get("EXAMPLES", "0.25"))


def examples(count: int, **more: Any) -> settings:
    """Settings for ``count`` examples, or for the share of them that this run tries."""
    return settings(max_examples=max(1, round(count * SHARE)), deadline=None, **more)


def use_share() -> None:
    """Make 100 examples, or this run's share of them, the default of tests that name no number."""
    settings.register_profile("share", examples(100))
    settings.load_profile("share")
