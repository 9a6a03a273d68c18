"""Refusals in the OpenAPI document."""

from __future__ import annotations

from jetmap_api.openapi_parts import PROBLEM, refusal_response, refusals


def test_refusals_are_problems() -> None:
    assert refusal_response("No.") == {"description": "No.", "content": PROBLEM}
    assert {status: text["description"] for status, text in refusals(404, 410).items()} == {
        404: "There is no such job.",
        410: "The job has expired, with its results.",
    }
