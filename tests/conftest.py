"""Fixtures that every test may use."""

from __future__ import annotations

import sys

import pytest

# Where pytest's processes are started without a file, as by xdist, they look like a notebook, and
# a notebook shares no keeper.
_main = sys.modules["__main__"]
if not hasattr(_main, "__file__"):
    _main.__file__ = __file__


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
