"""OpenAPI of what the gateway tells about itself: functions, workers, health, metrics."""

from __future__ import annotations

from typing import Any

from .openapi_jobs import PROBLEM, RETRY_AFTER
from .samples import Schema

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_SCHEMA: Schema = {"type": "object", "description": "a JSON schema"}

FUNCTION: Schema = {
    "type": "object",
    "title": "Function",
    "required": ["name", "doc", "item", "value", "kwargs", "alive", "cores", "agents"],
    "properties": {
        "name": _TEXT,
        "doc": _TEXT,
        "item": {**_SCHEMA, "title": "FunctionItem"},
        "value": {**_SCHEMA, "title": "FunctionValue"},
        "kwargs": {**_SCHEMA, "title": "FunctionKwargs"},
        "timeout": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "attempts": {"anyOf": [_COUNT, {"type": "null"}]},
        "module": _TEXT,
        "alive": {"type": "boolean", "description": "whether a worker offers it now"},
        "cores": _COUNT,
        "agents": {"type": "array", "items": _TEXT},
    },
}
AGENT: Schema = {
    "type": "object",
    "title": "Agent",
    "description": "An agent and the state of its cores.",
    "required": ["agent", "host", "pool", "cores", "functions"],
    "properties": {
        "agent": _TEXT,
        "host": _TEXT,
        "pool": _TEXT,
        "cores": _COUNT,
        "ready": _COUNT,
        "busy": _COUNT,
        "draining": {"type": "boolean"},
        "functions": {"type": "array", "items": _TEXT},
    },
}
HEALTH: Schema = {
    "type": "object",
    "title": "Health",
    "required": ["status"],
    "properties": {"status": _TEXT, "missing": _TEXT},
}


def paths() -> dict[str, Any]:
    """All of them."""
    name = {"name": "name", "in": "path", "required": True, "schema": _TEXT}
    alive = _of("Health", "The process answers.")
    ready = {
        "200": _of("Health", "A map would run."),
        "503": {**_of("Health", "`missing` says what is not there."), "headers": RETRY_AFTER},
    }
    starting = {
        "503": {
            "description": "The gateway is not connected.",
            "headers": RETRY_AFTER,
            "content": PROBLEM,
        }
    }
    unknown = {"404": {"description": "No worker offers it now.", "content": PROBLEM}}
    metrics = {
        "200": {
            "description": "OpenMetrics if accepted.",
            "content": {"text/plain": {"schema": _TEXT}},
        }
    }
    return {
        "/functions": _get(
            "functions",
            "list_functions",
            "The functions, as their newest version describes them",
            {"200": _list_of("Function", "Every function."), **starting},
        ),
        "/functions/{name}": _get(
            "functions",
            "get_function",
            "One function",
            {"200": _of("Function", "The function."), **unknown, **starting},
            name,
        ),
        "/workers": _get(
            "workers",
            "list_workers",
            "The agents and their cores",
            {"200": _list_of("Agent", "Every agent."), **starting},
        ),
        "/healthz": _get("health", "healthz", "Whether the process answers", {"200": alive}),
        "/readyz": _get("health", "readyz", "Whether a map would run", ready),
        "/metrics": _get("health", "metrics", "Metrics of this gateway", metrics | starting),
        "/metrics/pool": _get("health", "pool_metrics", "Metrics of the pool", metrics | starting),
    }


def _get(tag: str, id: str, summary: str, responses: Schema, *parameters: Schema) -> Schema:
    operation: Schema = {
        "tags": [tag],
        "operationId": id,
        "summary": summary,
        "responses": responses,
    }
    if parameters:
        operation["parameters"] = list(parameters)
    return {"get": operation}


def _of(schema: str, description: str) -> Schema:
    reference = {"$ref": f"#/components/schemas/{schema}"}
    return {"description": description, "content": {"application/json": {"schema": reference}}}


def _list_of(schema: str, description: str) -> Schema:
    array = {"type": "array", "items": {"$ref": f"#/components/schemas/{schema}"}}
    return {"description": description, "content": {"application/json": {"schema": array}}}
