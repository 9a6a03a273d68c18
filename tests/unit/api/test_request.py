"""The headers and the query of a map."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fake_cluster import FakeCluster
from jetmap import bounds
from jetmap_api.problems import Problem
from jetmap_api.request import (
    Options,
    Preference,
    check_kwargs,
    check_query,
    encoded_kwargs,
    number,
    parameters,
    read_options,
    read_preference,
    read_request,
    whole_number,
)


def keyword(n: int, *, factor: int) -> int:
    return n * factor


def scope(query: bytes = b"", *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    json = (b"content-type", b"application/json")
    return {"query_string": query, "headers": [json, *headers]}


def test_a_plain_request() -> None:
    request = read_request(scope())
    assert (request.body, request.answer, request.format, request.options) == (
        "json",
        "json",
        "json",
        Options(),
    )
    assert request.fail and request.prefer is None and not request.after_body


def test_headers_of_one_name_are_joined() -> None:
    headers = (
        (b"accept", b"image/png"),
        (b"accept", b"text/event-stream"),
        (b"prefer", b"wait=3"),
        (b"prefer", b"respond-async"),
    )
    request = read_request(scope(b"errors=collect", *headers, (b"x-jetmap-answer", b"After-Body")))
    assert request.answer == "sse" and not request.fail and request.after_body
    assert request.prefer == Preference(True, 3)


def test_two_types_of_a_body_are_refused() -> None:
    with pytest.raises(Problem, match="application/json, application/msgpack") as caught:
        read_request(scope(b"", (b"content-type", b"application/msgpack")))
    assert caught.value.status == 415


def test_a_compressed_body_is_refused() -> None:
    read_request(scope(b"", (b"content-encoding", b"identity")))
    with pytest.raises(Problem, match="without Content-Encoding: gzip"):
        read_request(scope(b"", (b"content-encoding", b"gzip")))


def test_options() -> None:
    options = read_options(b"errors=collect&order=input&timeout=1.5&kwargs=%7B%22a%22:1%7D")
    assert options == Options("collect", True, 1.5, b'{"a":1}')


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        (b"errors=x", "errors"),
        (b"order=x", "order"),
        (b"timeout=0", "timeout"),
        (b"kwargs=[]", "kwargs"),
        (b"timeout=1&timeout=2", "timeout"),
        (b"x=1", "x"),
        (b"errors", "errors"),
        (b"a=%FF", "query"),
    ],
)
def test_a_wrong_parameter_is_named(query: bytes, parameter: str) -> None:
    with pytest.raises(Problem) as caught:
        read_options(query)
    assert caught.value.status == 400 and caught.value.members["parameter"] == parameter


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"respond-async", Preference(True, None)),
        (b"wait=5", Preference(False, 5)),
        (b'respond-async; x, WAIT="7", wait=8', Preference(True, 7)),
        (b"wait=99999999999999", Preference(False, 600)),
        (b"wait=-1", None),
        (b"handling=lenient", None),
    ],
)
def test_preferences(header: bytes, expected: Preference | None) -> None:
    assert read_preference(header) == expected


def test_an_applied_preference_is_repeated() -> None:
    assert Preference(True, 3).applied() == b"respond-async, wait=3"
    assert Preference(False, 0).applied() == b"wait=0"


def test_queries_of_known_parameters() -> None:
    assert parameters(b"a=1&b=", ("a", "b")) == {"a": "1", "b": ""}
    with pytest.raises(Problem, match="use a or b"):
        parameters(b"c=1", ("a", "b"))
    with pytest.raises(Problem, match="is given twice"):
        check_query(b"a=1&a=1")
    check_query(b"")


def test_numbers_name_their_bounds() -> None:
    assert (
        number("wait", "1e1", bounds.POLL) == 10 and whole_number("start", "3", bounds.START) == 3
    )
    for read, text in ((number, "x"), (whole_number, "1.5")):
        with pytest.raises(Problem) as caught:
            read("n", text, bounds.START)  # type: ignore[operator]
        assert caught.value.members["minimum"] == 0


def test_keywords_travel_in_the_bodys_format() -> None:
    assert (
        encoded_kwargs(b'{"a":1}', "json") == b'{"a":1}' and encoded_kwargs(b"", "msgpack") == b""
    )
    assert encoded_kwargs(b'{"a":1}', "msgpack") == msgspec.msgpack.encode({"a": 1})
    with pytest.raises(Problem, match="integers of 64 bits"):
        encoded_kwargs(b'{"a":99999999999999999999}', "msgpack")


def test_keywords_are_compared_with_what_workers_announce() -> None:
    cluster: Any = FakeCluster(keyword)
    assert check_kwargs(cluster, "keyword", b'{"factor":2}')
    assert not check_kwargs(cluster, "unknown", b"")
    for wrong in (b"", b'{"x":1}'):
        with pytest.raises(Problem) as caught:
            check_kwargs(cluster, "keyword", wrong)
        assert caught.value.members["parameter"] == "kwargs"
