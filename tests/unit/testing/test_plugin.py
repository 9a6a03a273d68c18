"""The pytest plug-in; docs/testing.md is run with it."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from jetmap.testing import plugin

CODE = """
import sys
import jetmap.testing.plugin
print(sorted(name for name in sys.modules if name.startswith("jetmap")))
"""


def test_it_loads_nothing_that_is_not_used() -> None:
    said = subprocess.check_output([sys.executable, "-c", CODE], text=True)
    modules = [
        "jetmap",
        "jetmap.collector",
        "jetmap.testing",
        "jetmap.testing.plugin",
        "jetmap.version",
    ]
    assert said == f"{modules}\n"


def request(*fixtures: str, plugins: tuple[str, ...] = (), backend: Any = "asyncio") -> Any:
    has = SimpleNamespace(hasplugin=plugins.__contains__)
    values = {"anyio_backend": backend}
    return SimpleNamespace(
        fixturenames=fixtures,
        config=SimpleNamespace(pluginmanager=has),
        getfixturevalue=lambda name: values.get(name, name),
    )


def test_who_runs_the_event_loop() -> None:
    of = plugin._of_loop
    both = request("anyio_backend", plugins=("asyncio",), backend=("asyncio", {}))
    assert of(both, "cluster") == "_jetmap_cluster_anyio"
    assert of(request(plugins=("asyncio",)), "inline") == "_jetmap_inline_asyncio"
    with pytest.raises(pytest.fail.Exception, match="use jetmap_cluster_sync in others"):
        of(request(), "cluster")
    with pytest.raises(pytest.fail.Exception, match="backend asyncio, not trio"):
        of(request("anyio_backend", backend="trio"), "cluster")
