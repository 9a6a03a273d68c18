"""OpenAPI of the functions that are offered: to run each as a map, and as a job."""

from __future__ import annotations

import json
import re
from typing import Any

from jetmap import bounds
from jetmap.dispatch.tolerance import PATTERN
from jetmap.wire.presence import FunctionInfo

from .openapi_parts import NOT_OVER, refusal_response
from .samples import Schema, sample

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")

_STATUSES = {
    "400": "The body is malformed (with the position), or a parameter is.",
    "401": "The token is missing or wrong.",
    "404": "No worker ever announced a function of this name.",
    "406": "No answer of these media types.",
    "413": "The body, an item, the list or the answer is over its limit.",
    "415": "The body is not a JSON array, JSON lines or a MessagePack array.",
    "422": "An item does not fit the function's type; its record is under `error`.",
    "429": "Too many maps or items are open; see `Retry-After`.",
    "500": "The function raised, or its worker died; the item's record is under `error`.",
    "503": "No worker has this function now, the broker does not answer, the gateway's memory or "
    "disk space is taken, or it stops; see `Retry-After`.",
    "504": "The map, or an item, did not end in time.",
}

ACCEPTED: Schema = {
    "description": "The input is durable, and the job will run whatever dies.",
    "headers": {
        "Location": {"description": "The job.", "schema": {"type": "string"}},
        "Preference-Applied": {"schema": {"type": "string"}},
        **NOT_OVER,
    },
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Job"}}},
}

PREFER: Schema = {
    "name": "Prefer",
    "in": "header",
    # Without examples, because tools to try an API send them with the first click.
    "description": "`respond-async`: run it as a job, and answer 202 at once. `wait=N`: answer "
    f"202 if the job is not over within N seconds, {bounds.POLL.most} at most. Ignored if "
    "the gateway has no store of jobs.",
    "schema": {"type": "string"},
}

KEY: Schema = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Of the caller's choice: a request that comes again under the same key gets "
    "the same job.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}

VALUES: Schema = {
    "name": "values",
    "in": "query",
    "description": "`false`: only side effects count, and null stands for each value.",
    "schema": {"type": "boolean", "default": True},
}


LABELS: Schema = {
    "name": "labels",
    "in": "query",
    "description": f"Names and values by which people find it: {bounds.LABELS}.",
    "schema": {"type": "string", "pattern": bounds.LABELS_PATTERN},
    "examples": {"two": {"value": "customer=7,team=a"}},
}

MAX_PARALLEL: Schema = {
    "name": "max_parallel",
    "in": "query",
    "description": "Cores that it may use at most, over the whole pool; 0: no limit of its own.",
    "schema": bounds.PARALLEL_OR_NONE.schema(),
}


def _max_failed(description: str) -> Schema:
    return {
        "name": "max_failed",
        "in": "query",
        "description": description,
        "schema": {"type": "string", "pattern": PATTERN},
        "examples": {"number": {"value": "10"}, "share": {"value": "5%"}},
    }


SUBMIT_PARAMETERS: list[Schema] = [
    {
        "name": "timeout",
        "in": "query",
        "description": "Seconds for the whole job, from its start.",
        "schema": bounds.TIMEOUT.schema(),
    },
    _max_failed("Items that may fail, or their share. One more fails the job, and drops the rest."),
    VALUES,
    LABELS,
    MAX_PARALLEL,
    {
        "name": "ttl",
        "in": "query",
        "description": "Seconds that the job and its results are kept after its end.",
        "schema": bounds.TTL.schema(),
    },
    {
        "name": "reserve",
        "in": "query",
        "description": "Bytes of the store that its input and results may take.",
        "schema": bounds.SIZE.schema(),
    },
    KEY,
]

SUBMIT_STATUSES = {
    "400": "The body is malformed (with the position), or a parameter is; nothing is stored.",
    "404": "No worker ever announced a function of this name.",
    "408": "Nothing of the body came for `job_upload_idle` seconds; nothing is stored.",
    "409": "The first request of this Idempotency-Key is still uploading; see `Retry-After`.",
    "413": "An item is over its limit.",
    "415": "The body is not a JSON array, JSON lines or a MessagePack array.",
    "422": "The Idempotency-Key was used for another body, function or parameters.",
    "501": "This gateway's broker has no store that lasts.",
    "503": "The broker does not answer, or the gateway's memory is taken; see `Retry-After`.",
    "507": "The store is full; the problem has `limit`, `used` and `wanted`, in bytes.",
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
    _max_failed(
        "Items that may fail, or their share (not of JSON lines): errors are then collected, and "
        "one more ends the map with a problem."
    ),
    VALUES,
    LABELS,
    MAX_PARALLEL,
    PREFER,
]


def describe_function(info: FunctionInfo, schemas: Schemas) -> dict[str, Schema]:
    """Make the paths of one function."""
    operation = _operation(info, schemas)
    return {
        f"/map/{info.name}": {"post": operation},
        f"/jobs/{info.name}": {"post": _submission(info, operation)},
    }


class Schemas:
    """Collects the definitions of many documents under names of their own."""

    def __init__(self, schemas: dict[str, Any]) -> None:
        self.all = schemas
        self._sources: dict[str, Any] = {}

    def place(self, schema: Schema, function: str, role: str) -> Schema:
        """Move ``$defs`` of a schema to the components; references follow them."""
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
    """Make the operation that runs a function as a job."""
    own = [p for p in map["parameters"] if p["name"] in ("function", "kwargs")]
    responses: Schema = {"202": ACCEPTED}
    for status, description in SUBMIT_STATUSES.items():
        responses[status] = refusal_response(description)
    return {
        **map,
        "tags": ["jobs"],
        "operationId": map["operationId"].replace("map_", "submit_", 1),
        "parameters": own + SUBMIT_PARAMETERS,
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
    # A text, which every generated client can send; few can send parameters with a content.
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
    responses["202"] = ACCEPTED
    for status, description in _STATUSES.items():
        responses[status] = refusal_response(description)
    return responses


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}
