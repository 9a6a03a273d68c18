"""Modules of callers that cannot be imported: remembered for a while, and tried again."""

from __future__ import annotations

from jetmap.agent.imports import KEPT_BROUGHT, RETRY_SECONDS, Imports
from jetmap.agent.options import worker_setup
from jetmap.settings import Settings
from jetmap.wire.messages import FunctionRef
from jetmap.wire.worker_start import Broken, Brought, Loaded


def test_a_failure_is_news_once_and_over_after_a_while() -> None:
    imports = Imports(worker_setup(Settings(), modules=["a", "b"]))
    assert imports.on_failed(Broken("a", "no a", []), 100.0, fatal=False)
    assert not imports.on_failed(Broken("a", "no a", []), 105.0, fatal=False)
    assert imports.on_failed(Broken("a", "still no a", []), 106.0, fatal=False)
    assert imports.broken(106.0 + RETRY_SECONDS - 0.1) == {"a": "still no a"}
    assert imports.broken(106.0 + RETRY_SECONDS) == {}


def test_only_a_fatal_import_is_left_out_of_the_next_start() -> None:
    modules = ["a", "b"]
    imports = Imports(worker_setup(Settings(), modules=modules))
    imports.on_failed(Broken("a", "no", []), 1.0, fatal=False)
    assert modules == ["a", "b"]
    imports.on_failed(Broken("a", "no", []), 1.0, fatal=True)
    imports.on_failed(Broken("another", "no", []), 1.0, fatal=True)
    assert modules == ["b"]
    imports.on_changed()
    assert modules == ["a", "b"] and imports.broken(1.0) == {}


def test_a_loader_that_killed_a_worker_is_left_out_for_a_while() -> None:
    setup = worker_setup(Settings())
    imports = Imports(setup)
    imports.on_failed(Broken("m:f()", "died", [], "m.load"), 1.0, fatal=True)
    assert setup.unloadable == {"m.load": "died"}
    imports.on_start_failed(RETRY_SECONDS)
    assert setup.unloadable == {"m.load": "died"}, "it is too early"
    imports.on_start_failed(1.0 + RETRY_SECONDS)
    assert setup.unloadable == {} == imports.broken(1.0 + RETRY_SECONDS)
    imports.on_failed(Broken("m:f()", "died", [], "m.load"), 15.0, fatal=True)
    imports.on_ready(["m.load"])
    assert setup.unloadable == {}, "a chunk has made another worker try it"
    imports.on_failed(Broken("m:f()", "died", [], "m.load"), 20.0, fatal=True)
    imports.on_changed()
    assert setup.unloadable == {} and imports.broken(20.0) == {}


def test_new_workers_prepare_for_the_latest_functions_of_callers() -> None:
    setup = worker_setup(Settings())
    imports = Imports(setup)
    for number in range(KEPT_BROUGHT + 1):
        brought = Brought("f", FunctionRef("m", f"f{number}"))
        imports.on_loaded(Loaded({"m.load": 2.0}, brought))
    again = Brought("f", FunctionRef("m", "f1", value=b"new", digest="new"))
    imports.on_loaded(Loaded({"m.load": 2.0}, again))
    imports.on_loaded(Loaded({"m.load": 2.0}))
    assert len(setup.brought) == KEPT_BROUGHT and setup.brought[-1] is again
    assert [each.ref.qualname for each in setup.brought].count("f1") == 1
    assert imports.is_proven("m.load") and not imports.is_proven("m.other")
