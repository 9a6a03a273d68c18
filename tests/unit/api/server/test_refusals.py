"""Refusals before there is a request say the limit and what to do."""

from __future__ import annotations

from jetmap_api.problems import Problem
from jetmap_api.server.refusals import (
    connect,
    framing_too_large,
    head_too_large,
    other_version,
    refusal_of,
    too_many_headers,
    too_many_requests,
)


def test_statuses() -> None:
    made = [connect(), other_version(), too_many_headers(3), too_many_requests(3)]
    assert [problem.status for problem in made] == [405, 505, 431, 400]
    assert "3 headers" in made[2].detail and "3 requests" in made[3].detail


def test_a_large_head_names_its_setting() -> None:
    for is_address, status in ((True, 414), (False, 431)):
        problem = head_too_large(1000, is_address=is_address)
        assert problem.status == status
        assert problem.members == {"setting": "max_header_bytes", "limit": 1000}
    assert framing_too_large(1000).status == 400


def test_a_callbacks_refusal_is_found_in_the_parsers_error() -> None:
    error = RuntimeError("outer")
    error.__context__ = connect()
    found = refusal_of(error)
    assert isinstance(found, Problem) and found.status == 405
    plain = refusal_of(RuntimeError("Invalid method"))
    assert (plain.status, plain.slug, plain.detail) == (400, "not-http", "Invalid method")
