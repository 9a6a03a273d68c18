"""The headers and the query of a submitted job."""

from __future__ import annotations

from typing import Any

import pytest

from jetmap.bounds import MOST_KEY
from jetmap_api.job_request import identity, job_of_map, read_job_request
from jetmap_api.problems import Problem
from jetmap_api.request import read_request
from jetmap_api.security import CALLER
from jetmap_api.signer import caller_of


def scope(query: bytes = b"", *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    json = (b"content-type", b"application/json")
    return {"query_string": query, "headers": [json, *headers]}


def test_parameters_and_headers_are_read() -> None:
    query = b"timeout=5&ttl=60&reserve=1000&kwargs=%7B%22a%22%3A1%7D"
    request = read_job_request(
        scope(query, (b"idempotency-key", b'"k"'), (b"content-length", b"3"))
    )
    assert (request.timeout, request.ttl, request.reserve) == (5, 60, 1000)
    assert (request.kwargs, request.key, request.caller) == (b'{"a":1}', "k", "anonymous")
    assert (request.body, request.format, request.framing.length) == ("json", "json", 3)


@pytest.mark.parametrize(
    ("header", "status"),
    [((b"content-type", b"application/msgpack"), 415), ((b"idempotency-key", b"k2"), 400)],
)
def test_a_header_that_is_given_twice_is_refused(header: tuple[bytes, bytes], status: int) -> None:
    with pytest.raises(Problem) as caught:
        read_job_request(scope(b"", (b"idempotency-key", b"k"), header))
    assert caught.value.status == status


@pytest.mark.parametrize(
    "query", [b"ttl=0", b"reserve=x", b"errors=fail", b"ttl=1&ttl=2", b"kwargs=1"]
)
def test_wrong_parameters_are_refused(query: bytes) -> None:
    with pytest.raises(Problem) as caught:
        read_job_request(scope(query))
    assert (caught.value.status, caught.value.slug) == (400, "bad-parameter")


def test_the_caller_is_the_digest_of_the_token_or_the_session() -> None:
    assert identity(scope(b"", (b"authorization", b"Bearer t"))) == (caller_of(b"t"), None)
    assert identity(scope(b"", (b"authorization", b"Basic t")))[0] == "anonymous"
    assert identity({**scope(b"", (b"authorization", b"Bearer t")), CALLER: "me"})[0] == "me"


@pytest.mark.parametrize("key", [b"", b" ", b"x" * (MOST_KEY + 1)])
def test_a_key_has_a_length(key: bytes) -> None:
    with pytest.raises(Problem) as caught:
        identity(scope(b"", (b"idempotency-key", key)))
    assert caught.value.members["parameter"] == "Idempotency-Key"


def test_a_preferred_job_keeps_the_maps_parameters() -> None:
    asked = scope(b"timeout=3&errors=collect", (b"idempotency-key", b"k"))
    job = job_of_map(read_request(asked), asked)
    assert (job.timeout, job.key, job.body, job.ttl) == (3, "k", "json", None)
