"""OpenAPI of what the workers really offer: a path per live function."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from jetmap import bounds
from jetmap.wire.messages import FunctionInfo

from . import openapi_jobs, openapi_views
from .samples import Schema, sample

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")

_STATUSES = {
    "400": "The body is malformed (with the position), or a parameter is.",
    "401": "The token is missing or wrong.",
    "404": "No worker ever announced a function of this name.",
    "406": "No answer of these media types.",
    "413": "The body, an item, the list or the answer is over its limit.",
    "415": "The body is no JSON array, JSON lines or MessagePack array.",
    "422": "An item does not fit the function's type; its record is under `error`.",
    "429": "Too many maps or items are open; see `Retry-After`.",
    "500": "The function raised, or its worker died; the item's record is under `error`.",
    "503": "No worker has this function now, the broker does not answer, the gateway's memory or "
    "disk space is taken, or it stops; see `Retry-After`.",
    "504": "The map, or an item, did not end in time.",
}

_ERROR: Schema = {
    "type": "object",
    "title": "ItemError",
    "description": "The error of one item.",
    "required": ["index", "kind", "type", "message"],
    "properties": {
        "index": {"type": "integer", "minimum": 0, "description": "its position in the input"},
        "kind": {"enum": ["raised", "invalid", "timeout", "lost", "unencodable"]},
        "type": {"type": "string", "description": "the class of the exception"},
        "message": {"type": "string"},
        "traceback": {"type": "string", "description": "only with --debug"},
    },
    "examples": [{"index": 3, "kind": "raised", "type": "ValueError", "message": "too small"}],
}

_PROBLEM: Schema = {
    "type": "object",
    "title": "Problem",
    "description": "A refusal (RFC 9457).",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "examples": ["urn:jetmap:item-raised"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "error": {"$ref": "#/components/schemas/ItemError"},
        "position": {"type": "integer", "description": "where the body is malformed, in bytes"},
        "setting": {"type": "string", "description": "the limit's setting"},
        "limit": {"type": "integer"},
    },
}

_PARAMETERS: list[Schema] = [
    {
        "name": "errors",
        "in": "query",
        "description": "`fail`: the first failing item ends the map with a problem that holds "
        "its error, in band once a stream has begun. `collect`: every item gets its value or its "
        "error.",
        "schema": {"enum": ["fail", "collect"], "default": "fail"},
    },
    {
        "name": "order",
        "in": "query",
        "description": "Of JSON lines and events: as items finish, or as in the input.",
        "schema": {"enum": ["finish", "input"], "default": "finish"},
    },
    {
        "name": "timeout",
        "in": "query",
        "description": "Seconds for the whole map.",
        "schema": bounds.TIMEOUT.schema(),
    },
    openapi_jobs.PREFER,
]


TAGS = (
    ("map", "Run a function over every item of a list."),
    ("jobs", "The same, durably: submit, look, read the outcomes, cancel."),
    ("functions", "What the workers offer."),
    ("workers", "Who computes."),
    ("health", "For probes and Prometheus. HEAD works as GET, here and everywhere."),
)
# Refusals that each operation may answer with, unless it documents the status itself.
_ANYWHERE = {
    "400": "A parameter is not what it should be.",
    "401": "The token is missing or wrong.",
    "403": "The host is not among `allowed_hosts`, or a page of another site uses a session.",
    "503": "The broker does not answer, or the gateway stops; see `Retry-After`.",
}
_OPEN = ("/healthz", "/readyz")


def extend(
    document: dict[str, Any], functions: Iterable[FunctionInfo], cookie: str | None = None
) -> dict[str, Any]:
    """The document with a path for each function; the generic path if there is none.

    cookie: the name of a session's cookie, if the gateway asks for a token.
    """
    paths = dict(document.get("paths", {}))
    components = dict(document.get("components", {}))
    schemas = Schemas(dict(components.get("schemas", {})))
    infos = list(functions) or [FunctionInfo(name="{function}", doc="Any function.")]
    for info in infos:
        operation = _operation(info, schemas)
        paths[f"/map/{info.name}"] = {"post": operation}
        paths[f"/jobs/{info.name}"] = {"post": _submission(info, operation)}
    paths |= openapi_jobs.paths()
    paths |= openapi_views.paths()
    shared = {
        "ItemError": _ERROR,
        "Problem": _PROBLEM,
        "Job": openapi_jobs.JOB,
        "Function": openapi_views.FUNCTION,
        "Agent": openapi_views.AGENT,
        "Health": openapi_views.HEALTH,
    }
    components["schemas"] = schemas.all | shared
    complete = {
        path: {method: _complete(path, operation) for method, operation in methods.items()}
        for path, methods in paths.items()
    }
    tags = [{"name": name, "description": text} for name, text in TAGS]
    extended = {**document, "tags": tags, "paths": complete, "components": components}
    if cookie is not None:
        components["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer", "description": "The gateway's token."},
            "session": {
                "type": "apiKey",
                "in": "cookie",
                "name": cookie,
                "description": "Set by the login page, for requests of the gateway's own pages.",
            },
        }
        extended["security"] = [{"token": []}, {"session": []}]
        for path in _OPEN:
            complete[path]["get"]["security"] = []
    return extended


def _complete(path: str, operation: Schema) -> Schema:
    """The operation with the refusals that any may answer with, and the headers of refusals."""
    responses = dict(operation["responses"])
    if path not in _OPEN:
        for status, text in _ANYWHERE.items():
            responses.setdefault(status, {"description": text, "content": openapi_jobs.PROBLEM})
    for status, headers in (
        ("401", openapi_jobs.CHALLENGE),
        ("409", openapi_jobs.RETRY_AFTER),
        ("429", openapi_jobs.RETRY_AFTER),
        ("503", openapi_jobs.RETRY_AFTER),
    ):
        if status in responses:
            responses[status] = {"headers": headers, **responses[status]}
    return {**operation, "responses": dict(sorted(responses.items()))}


class Schemas:
    """Collects the definitions of many documents under names of their own."""

    def __init__(self, schemas: dict[str, Any]) -> None:
        self.all = schemas
        self._sources: dict[str, Any] = {}

    def place(self, schema: Schema, function: str, role: str) -> Schema:
        """The schema without ``$defs``, which become components; references follow them."""
        definitions = schema.get("$defs", {})
        names = {}
        for name, definition in definitions.items():
            short = _UNSAFE.sub("_", f"{function}.{name}")
            if self._sources.get(short, definition) != definition:
                short = _UNSAFE.sub("_", f"{function}.{role}.{name}")
            self._sources[short] = definition
            names[name] = short
        for name, definition in definitions.items():
            self.all[names[name]] = _moved(definition, names)
        moved: Schema = _moved({k: v for k, v in schema.items() if k != "$defs"}, names)
        return moved


def _moved(schema: Any, names: dict[str, str]) -> Any:
    if isinstance(schema, list):
        return [_moved(part, names) for part in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {}
    for key, part in schema.items():
        if key in ("$ref", "mapping"):
            moved[key] = _reference(part, names)
        else:
            moved[key] = _moved(part, names)
    return moved


def _reference(part: Any, names: dict[str, str]) -> Any:
    if isinstance(part, dict):
        return {key: _reference(value, names) for key, value in part.items()}
    if isinstance(part, str) and part.startswith("#/$defs/"):
        name = part.removeprefix("#/$defs/")
        return f"#/components/schemas/{names.get(name, name)}"
    return part


def _operation(info: FunctionInfo, schemas: Schemas) -> Schema:
    item = schemas.place(info.item, info.name, "item")
    value = schemas.place(info.value, info.name, "value")
    items = [sample(info.item, info.item.get("$defs", {}), variant) for variant in range(3)]
    summary, _, description = info.doc.strip().partition("\n")
    operation: Schema = {
        "tags": ["map"],
        "operationId": f"map_{_UNSAFE.sub('_', info.name).strip('_')}",
        "summary": summary or info.name,
        "parameters": _parameters(info, schemas),
        "requestBody": _request(item, items),
        "responses": _responses(info, value),
    }
    if description.strip():
        operation["description"] = description.strip()
    return operation


def _submission(info: FunctionInfo, map: Schema) -> Schema:
    """The same as a job."""
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    own = [p for p in map["parameters"] if p["name"] in ("function", "kwargs")]
    responses: Schema = {"202": openapi_jobs.ACCEPTED}
    for status, description in openapi_jobs.SUBMIT_STATUSES.items():
        responses[status] = {"description": description, "content": problem}
    return {
        **map,
        "tags": ["jobs"],
        "operationId": map["operationId"].replace("map_", "submit_", 1),
        "parameters": own + openapi_jobs.SUBMIT_PARAMETERS,
        "responses": responses,
    }


def _parameters(info: FunctionInfo, schemas: Schemas) -> list[Schema]:
    parameters = list(_PARAMETERS)
    if info.name == "{function}":
        name = {"name": "function", "in": "path", "required": True, "schema": {"type": "string"}}
        parameters.insert(0, name)
        schema: Schema = {"type": "object"}
    elif info.kwargs.get("properties") or "$ref" in info.kwargs:
        schema = schemas.place(info.kwargs, info.name, "kwargs")
    else:
        return parameters
    # As a text, which every generator of clients can send; few know parameters with a content.
    parameter: Schema = {
        "name": "kwargs",
        "in": "query",
        "description": "The function's keyword-only parameters, the same for every item, as a JSON "
        "object.",
        "required": bool(info.kwargs.get("required")),
        "schema": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": schema,
        },
    }
    if info.kwargs:
        example = sample(info.kwargs, info.kwargs.get("$defs", {}))
        parameter["example"] = json.dumps(example, ensure_ascii=False)
    parameters.append(parameter)
    return parameters


def _request(item: Schema, items: list[Any]) -> Schema:
    array: Schema = {"type": "array", "items": item}
    return {
        "required": True,
        "content": {
            "application/json": {"schema": array, "example": items},
            "application/jsonl": {"schema": item},
            "application/msgpack": {"schema": array},
        },
    }


def _responses(info: FunctionInfo, value: Schema) -> Schema:
    values = [sample(info.value, info.value.get("$defs", {}), variant) for variant in range(3)]
    array: Schema = {"type": "array", "items": value}
    error = {"$ref": "#/components/schemas/ItemError"}
    nullable = {"anyOf": [value, {"type": "null"}]}
    collected: Schema = {
        "type": "object",
        "title": "Collected",
        "description": "With errors=collect.",
        "required": ["values", "errors"],
        "properties": {
            "values": {"type": "array", "items": nullable},
            "errors": {"type": "array", "items": error},
        },
    }
    lists: Schema = {"schema": {"anyOf": [array, collected]}}
    line: Schema = {
        "anyOf": [
            _object(index={"type": "integer"}, value=value),
            _object(index={"type": "integer"}, error=error),
            _object(done={"type": "integer"}, failed={"type": "integer"}),
            _object(problem={"$ref": "#/components/schemas/Problem"}),
        ]
    }
    responses: Schema = {
        "200": {
            "description": "The values, in input order; or a stream of outcomes.",
            "content": {
                "application/json": {**lists, "example": values},
                "application/msgpack": lists,
                "application/jsonl": {"schema": line},
                "text/event-stream": {"schema": {"type": "string"}},
            },
        }
    }
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    responses["202"] = openapi_jobs.ACCEPTED
    for status, description in _STATUSES.items():
        responses[status] = {"description": description, "content": problem}
    return responses


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}
