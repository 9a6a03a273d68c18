"""Programs and rights that some tests need and not every machine has."""

from __future__ import annotations

import os
import shutil

import pytest


def skip_or_fail(missing: str) -> None:
    """Skip the test because ``missing`` is not here; on CI, where it must be, fail instead."""
    if os.environ.get("CI"):
        pytest.fail(f"{missing}: CI must have it (.ci/run installs what the tests need)")
    pytest.skip(missing)


def need_tool(*names: str) -> str:
    """Path of the first of these programs that is installed; skip the test if none is."""
    for name in names:
        if path := shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"):
            return path
    skip_or_fail(f"{' or '.join(names)} is not installed")
    raise AssertionError("unreachable")


def need_root(purpose: str) -> None:
    """Skip the test unless it runs as root, which ``purpose`` needs."""
    if os.geteuid() != 0:
        skip_or_fail(f"{purpose} needs root")
