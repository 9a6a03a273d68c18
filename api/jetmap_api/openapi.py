"""The OpenAPI document: FastAPI's, with the paths of functions that are offered now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from jetmap.wire.presence import FunctionInfo

from .models import ItemError, Job, Problem
from .openapi_functions import Schemas, describe_function
from .openapi_parts import CHALLENGE, RETRY_AFTER, refusal_response
from .samples import Schema

TAGS = (
    ("map", "Run a function over every item of a list."),
    ("jobs", "The same, durably: submit, look, read the outcomes, cancel."),
    ("functions", "What the workers offer."),
    ("workers", "Who computes."),
    ("pool", "Pause all of it."),
    ("health", "For probes and Prometheus. HEAD works as GET, here and everywhere."),
)
# Refusals that each operation may answer with, unless it documents the status itself.
_ANYWHERE = {
    "400": "A parameter is unknown, malformed or out of bounds.",
    "401": "The token is missing or wrong.",
    "403": "The host is not among `allowed_hosts`, or a page of another site uses a session.",
    "503": "The broker does not answer, or the gateway stops; see `Retry-After`.",
}
_OPEN = ("/healthz", "/readyz")


# FastAPI's own refusal, which is never sent.
_UNUSED = ("HTTPValidationError", "ValidationError")


def extend(
    document: dict[str, Any], functions: Iterable[FunctionInfo], cookie: str | None = None
) -> dict[str, Any]:
    """Add a path for each function to FastAPI's document; the generic path if there is none.

    cookie: the name of a session's cookie, if the gateway asks for a token.
    """
    components = dict(document.get("components", {}))
    own = {
        name: schema
        for name, schema in components.get("schemas", {}).items()
        if name not in _UNUSED
    }
    schemas = Schemas({})
    paths: dict[str, Any] = {}
    for info in list(functions) or [FunctionInfo(name="{function}", doc="Any function.")]:
        paths |= describe_function(info, schemas)
    paths |= document.get("paths", {})
    components["schemas"] = schemas.all | _referred(ItemError, Problem, Job) | own
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


def _referred(*models: type[BaseModel]) -> dict[str, Schema]:
    """Make the schemas of models that are referred to by name."""
    wanted = [(model, "serialization") for model in models]
    template = "#/components/schemas/{model}"
    _, found = models_json_schema(wanted, ref_template=template)  # type: ignore[arg-type]
    definitions: dict[str, Schema] = found["$defs"]
    return definitions


def _complete(path: str, operation: Schema) -> Schema:
    """Add the refusals that any operation may answer with, and the headers of refusals."""
    responses = dict(operation["responses"])
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    if path not in _OPEN:
        for status, text in _ANYWHERE.items():
            responses.setdefault(status, refusal_response(text))
    for status, headers in (
        ("401", CHALLENGE),
        ("409", RETRY_AFTER),
        ("429", RETRY_AFTER),
        ("503", RETRY_AFTER),
    ):
        if status in responses:
            responses[status] = {"headers": headers, **responses[status]}
    return {**operation, "responses": dict(sorted(responses.items()))}
