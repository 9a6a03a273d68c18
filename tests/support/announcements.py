"""Announcements of agents, made up."""

from __future__ import annotations

from typing import Any

from jetmap.wire.presence import FunctionInfo, Presence


def presence(agent: str = "a", **changes: Any) -> Presence:
    fields: dict[str, Any] = {
        "agent": agent, "host": f"host-{agent}", "pid": 1, "pool": "p", "offer": "o1",
        "version": "1", "rank": 1, "cores": 2, "ready": 2, "busy": 0, "draining": False,
        "gone": False, "functions": [FunctionInfo("f")],
    }  # fmt: skip
    cores = changes.pop("workers", [])
    return Presence(**(fields | {"listed": cores} | changes))
