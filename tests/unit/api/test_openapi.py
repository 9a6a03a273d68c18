"""The OpenAPI document: refusals of every operation, named schemas, security."""

from __future__ import annotations

from jetmap.wire.presence import FunctionInfo
from jetmap_api.openapi import extend

REFUSED = {
    "description": "",
    "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/HTTPValidationError"}}
    },
}
DOCUMENT = {
    "paths": {
        "/jobs": {"get": {"responses": {"200": {"description": "A page."}, "422": REFUSED}}},
        "/healthz": {"get": {"responses": {"200": {"description": "It answers."}}}},
        "/readyz": {"get": {"responses": {"200": {"description": "It would run."}}}},
    },
    "components": {"schemas": {"HTTPValidationError": {}, "ValidationError": {}, "JobList": {}}},
}
INFO = FunctionInfo(name="f", doc="Do it.\n\nMore.", item={"type": "integer"}, value={}, kwargs={})


def test_refusals_of_every_operation_are_added() -> None:
    document = extend(DOCUMENT, [INFO])
    responses = document["paths"]["/jobs"]["get"]["responses"]
    assert list(responses) == ["200", "400", "401", "403", "503"]
    assert "Retry-After" in responses["503"]["headers"]
    assert list(document["paths"]["/healthz"]["get"]["responses"]) == ["200"]


def test_schemas_are_named_and_frameworks_own_are_gone() -> None:
    schemas = extend(DOCUMENT, [INFO])["components"]["schemas"]
    assert {"Problem", "ItemError", "Job", "JobLinks", "JobList"} <= set(schemas)
    assert not {"HTTPValidationError", "ValidationError"} & set(schemas)


def test_each_function_has_its_paths_and_without_any_there_is_a_generic_one() -> None:
    paths = extend(DOCUMENT, [INFO])["paths"]
    assert {"/map/f", "/jobs/f"} <= set(paths)
    assert paths["/map/f"]["post"]["summary"] == "Do it."
    generic = extend(DOCUMENT, [])["paths"]["/map/{function}"]["post"]
    assert generic["parameters"][0]["in"] == "path"


def test_security_only_with_a_token() -> None:
    assert "security" not in extend(DOCUMENT, [INFO])
    document = extend(DOCUMENT, [INFO], "jetmap-1")
    assert document["components"]["securitySchemes"]["session"]["name"] == "jetmap-1"
    assert document["paths"]["/readyz"]["get"]["security"] == []
