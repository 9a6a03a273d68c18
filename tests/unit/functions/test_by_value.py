"""Functions that travel as pickles."""

from __future__ import annotations

import multiprocessing
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jetmap.errors import NotImportable
from jetmap.functions.by_value import pickled, unpickled
from jetmap.functions.function import Function


def session(source: str) -> dict[str, Any]:
    scope: dict[str, Any] = {"__name__": "session_without_a_file", "dataclass": dataclass}
    exec(source, scope)
    return scope


def test_a_function_brings_its_globals_and_options() -> None:
    scope = session("K = 3\ndef f(n: int) -> int: return n + K\n")
    function = unpickled(pickled(Function(scope["f"], timeout=5, attempts=3)), "f")
    assert function.callable(4) == 7
    assert (function.name, function.timeout, function.attempts) == ("f", 5, 3)
    scope["K"] = 10
    assert function.callable(4) == 7


def test_a_global_that_cannot_travel_is_named() -> None:
    scope = session("def f(n): return LOCK\n")
    scope["LOCK"] = threading.Lock()
    with pytest.raises(NotImportable, match="its global 'LOCK'"):
        pickled(Function(scope["f"]))


def test_a_global_that_is_an_open_file_is_refused() -> None:
    scope = session("def f(n): return FILE.readline()\n")
    with (
        Path(__file__).open(encoding="utf-8") as scope["FILE"],
        pytest.raises(NotImportable, match=r"its global 'FILE': .* an open file; send its path"),
    ):
        pickled(Function(scope["f"]))


def test_a_global_that_is_a_connection_is_refused() -> None:
    """Its pickle would be the number of a file, which is another file in a worker."""
    scope = session("def f(n): return END.recv()\n")
    reader, writer = multiprocessing.Pipe()
    with reader, writer:
        scope["END"] = reader
        with pytest.raises(NotImportable, match=r"its global 'END': .* one end of a connection"):
            pickled(Function(scope["f"]))


def test_a_large_global_is_named() -> None:
    scope = session("def f(n): return DATA[n]\n")
    scope["DATA"] = bytes(100_000)
    with pytest.raises(NotImportable, match=r"with its global 'DATA' .* limit of 10,000 bytes"):
        pickled(Function(scope["f"]), 10_000)


def test_what_a_worker_cannot_load() -> None:
    with pytest.raises(NotImportable, match="a worker cannot load f"):
        unpickled(b"no pickle", "f")
