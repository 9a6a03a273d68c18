"""OpenAPI of functions: their schemas, parameters and samples."""

from __future__ import annotations

import json

from jetmap.wire.presence import FunctionInfo
from jetmap_api.openapi_functions import Schemas, describe_function

POINT = {
    "$ref": "#/$defs/Point",
    "$defs": {"Point": {"type": "object", "properties": {"x": {"type": "integer"}}}},
}


def test_definitions_become_components_of_their_function() -> None:
    schemas = Schemas({})
    assert schemas.place(POINT, "a.f", "item") == {"$ref": "#/components/schemas/a.f.Point"}
    other = {**POINT, "$defs": {"Point": {"type": "string"}}}
    assert schemas.place(other, "a.f", "value") == {"$ref": "#/components/schemas/a.f.value.Point"}
    assert set(schemas.all) == {"a.f.Point", "a.f.value.Point"}


def test_references_within_definitions_and_mappings_follow() -> None:
    schema = {
        "anyOf": [{"$ref": "#/$defs/A"}],
        "discriminator": {"mapping": {"a": "#/$defs/A"}},
        "$defs": {"A": {"items": {"$ref": "#/$defs/A"}}},
    }
    schemas = Schemas({})
    placed = schemas.place(schema, "f", "item")
    assert placed["discriminator"]["mapping"]["a"] == "#/components/schemas/f.A"
    assert schemas.all["f.A"]["items"]["$ref"] == "#/components/schemas/f.A"


def test_a_function_is_a_map_and_a_job() -> None:
    kwargs = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    info = FunctionInfo(name="a.f", doc="", item={"type": "integer"}, value={}, kwargs=kwargs)
    paths = describe_function(info, Schemas({}))
    map, job = paths["/map/a.f"]["post"], paths["/jobs/a.f"]["post"]
    assert (map["operationId"], job["operationId"]) == ("map_a.f", "submit_a.f")
    named = {p["name"]: p for p in map["parameters"]}
    assert named["kwargs"]["required"] and isinstance(
        json.loads(named["kwargs"]["example"])["n"], int
    )
    assert {p["name"] for p in job["parameters"]} == {
        "kwargs",
        "timeout",
        "ttl",
        "max_failed",
        "values",
        "labels",
        "max_parallel",
        "reserve",
        "Idempotency-Key",
    }
    assert "202" in job["responses"] and "200" not in job["responses"]
    assert map["requestBody"]["content"]["application/json"]["schema"]["items"] == {
        "type": "integer"
    }
