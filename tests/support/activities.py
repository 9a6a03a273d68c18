"""Announcements of dispatchers, made up."""

from __future__ import annotations

from typing import Any

from jetmap.wire.activity import Activity, FailureActivity, MapActivity


def map_of(id: str = "m1", **fields: Any) -> MapActivity:
    values: dict[str, Any] = {
        "id": id, "function": "f", "kind": "map", "state": "running", "total": 100, "done": 10,
        "failed": 0, "rate": 5.0, "left": 18.0, "cores": 2.0, "weight": 1.0, "limit": None,
        "waits": "cores", "age": 4.0, "oldest": 1.0,
    }  # fmt: skip
    return MapActivity(**(values | fields))


def activity(dispatcher: str = "d1", sequence: int = 1, **fields: Any) -> Activity:
    values: dict[str, Any] = {
        "dispatcher": dispatcher, "pool": "p", "sequence": sequence, "inbox": f"i.{dispatcher}",
        "owner": f"api on {dispatcher}", "host": "h", "pid": 7, "maps": [], "functions": [],
        "failures": [], "more": 0, "more_done": 0, "more_total": 0, "items": 0, "rate": 0.0,
        "express": {}, "waiting": 0, "waiting_seconds": 0.0, "unknown": 0, "refused": {},
    }  # fmt: skip
    return Activity(**(values | fields))


def failure(key: str = "k", **fields: Any) -> FailureActivity:
    values: dict[str, Any] = {
        "key": key, "function": "f", "kind": "raised", "type": "E", "message": "no", "count": 2,
        "first": 50.0, "last": 5.0, "counts": [0] * 29 + [2], "hosts": ["a"],
    }  # fmt: skip
    return FailureActivity(**(values | fields))
