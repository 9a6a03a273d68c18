"""The summary of `jetmap status`."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from rich.console import Console

from jetmap.cli.status import show, summary
from jetmap.wire.presence import CoreStatus, FunctionInfo, Presence

BUSY = CoreStatus(11, 0, "busy", "double", "m1", 1.0)
AGENT = Presence(
    "a", "here", 7, "p", "new", "2", 2, 2, 2, 1, False, False, [FunctionInfo("double")], [BUSY]
)


def agent(**changes: Any) -> Presence:
    return msgspec.structs.replace(AGENT, **changes)


def test_cores_chunks_and_maps_are_counted() -> None:
    found = summary(
        "p", [agent(pending=3), agent(agent="b", pending=3), agent(offer="old", rank=1)]
    )
    assert [found[name] for name in ("cores", "ready", "busy")] == [6, 6, 3]
    assert found["waiting_chunks"] == 3  # Agents of one offer see the same queue.
    assert [offer["offer"] for offer in found["offers"]] == ["new", "old"]
    [map] = found["maps"]
    assert (map["map"], map["function"], map["cores"], map["done"]) == ("m1", "double", 3, None)
    assert [(each["name"], each["cores"]) for each in found["functions"]] == [("double", 6)]


def test_maps_have_their_progress_from_whoever_runs_them() -> None:
    row: dict[str, Any] = {
        "id": "m1", "function": "double", "kind": "map", "state": "running", "done": 5,
        "total": None, "failed": 1, "rate": 2.5, "left": None, "waits": "cores", "owner": "api",
        "labels": {}, "ended": None, "cores": 9.0,
    }  # fmt: skip
    found = summary("p", [agent()], [row, row | {"id": "m0", "ended": 3.0}])
    [map] = found["maps"]
    assert (map["map"], map["cores"], map["done"], map["rate"]) == ("m1", 1, 5, 2.5)
    console = Console(width=200)
    with console.capture() as capture:
        show(found, console)
    assert "2.5" in capture.get() and "cores" in capture.get()


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "ready"),
        ({"ready": 0}, "starting"),
        ({"ready": 0, "failure": "no module"}, "cannot start"),
        ({"failure": "the changed source cannot be loaded"}, "ready"),
        ({"draining": True}, "draining"),
    ],
)
def test_states(changes: dict[str, Any], state: str) -> None:
    assert summary("p", [agent(**changes)])["hosts"][0]["state"] == state


def shown(*agents: Presence) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        show(summary("p", list(agents)), console)
    return capture.get()


def test_what_looks_like_markup_is_shown_as_it_is() -> None:
    doc = "Turn list[int] into [/b] and [red]."
    assert doc in shown(agent(functions=[FunctionInfo("double", doc=doc)]))


def test_control_characters_of_hosts_do_not_act() -> None:
    odd = "\x1b[2J\x9b\u202e"
    functions = [FunctionInfo(f"f{odd}", doc=odd)]
    found = shown(
        agent(host=f"h{odd}", functions=functions, failure=f"no {odd}\nmodule", version=odd),
        agent(agent="b", version="2", offer="old", python="3.12"),
    )
    escaped = "\\x1b[2J\\x9b\\u202e"
    assert f"h{escaped}: no {escaped}\nmodule" in found and f"f{escaped}" in found
    assert not set("\x1b\x9b\u202e") & set(found)


def test_failures_are_shown() -> None:
    assert "here: workers cannot start:\nno module" in shown(agent(ready=0, failure="no module"))
    assert "here: the changed source" in shown(agent(failure="the changed source is broken"))


def test_an_empty_pool_says_what_to_start() -> None:
    assert "no workers: start `jetmap worker TASKS`" in shown()
