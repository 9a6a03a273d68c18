"""Modules of callers that cannot be imported: remembered for a while, and tried again."""

from __future__ import annotations

from jetmap.agent.imports import RETRY_SECONDS, Imports
from jetmap.wire.worker_start import Broken


def test_a_failure_is_news_once_and_over_after_a_while() -> None:
    imports = Imports(["a", "b"])
    assert imports.on_failed(Broken("a", "no a", []), 100.0, fatal=False)
    assert not imports.on_failed(Broken("a", "no a", []), 105.0, fatal=False)
    assert imports.on_failed(Broken("a", "still no a", []), 106.0, fatal=False)
    assert imports.broken(106.0 + RETRY_SECONDS - 0.1) == {"a": "still no a"}
    assert imports.broken(106.0 + RETRY_SECONDS) == {}


def test_only_a_fatal_import_is_left_out_of_the_next_start() -> None:
    modules = ["a", "b"]
    imports = Imports(modules)
    imports.on_failed(Broken("a", "no", []), 1.0, fatal=False)
    assert modules == ["a", "b"]
    imports.on_failed(Broken("a", "no", []), 1.0, fatal=True)
    imports.on_failed(Broken("another", "no", []), 1.0, fatal=True)
    assert modules == ["b"]
    imports.on_changed()
    assert modules == ["a", "b"] and imports.broken(1.0) == {}
