"""The package's public names: loaded when used, and nothing before."""

from __future__ import annotations

import subprocess
import sys

import pytest

import jetmap


def test_each_public_name_is_there() -> None:
    assert dir(jetmap) == jetmap.__all__ == sorted(jetmap.__all__)
    for name in jetmap.__all__:
        assert getattr(jetmap, name).__module__.startswith("jetmap.")


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Clutser'"):
        _ = jetmap.Clutser  # type: ignore[attr-defined]


def test_a_task_loads_no_client() -> None:
    """A worker imports ``task`` alone."""
    code = (
        "import sys; from jetmap import task; "
        "print([name for name in sys.modules if name.startswith(('jetmap.client', 'nats'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
