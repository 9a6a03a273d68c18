"""Media types of bodies and answers."""

from __future__ import annotations

import pytest

from jetmap_api.media import answer_type, body_type
from jetmap_api.problems import Problem


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (b"application/json", "json"),
        (b"Application/JSON; charset=UTF-8", "json"),
        (b'application/json; charset="utf8"', "json"),
        (b"application/x-ndjson", "jsonl"),
        (b"application/jsonl", "jsonl"),
        (b"application/vnd.msgpack", "msgpack"),
    ],
)
def test_bodies(header: bytes, body: str) -> None:
    assert body_type(header) == body


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"text/plain",
        b"application/x-www-form-urlencoded",
        b"application/json; charset=latin-1",
    ],
)
def test_other_bodies_are_refused_with_those_accepted(header: bytes | None) -> None:
    with pytest.raises(Problem, match="curl --json") as caught:
        body_type(header)
    assert caught.value.status == 415
    assert dict(caught.value.headers)[b"accept-post"].startswith(b"application/json")


@pytest.mark.parametrize(
    ("header", "answer"),
    [
        (None, "json"),
        (b" ", "json"),
        (b"*/*", "json"),
        (b"text/*", "sse"),
        (b"application/json;q=0.1, application/jsonl", "jsonl"),
        (b"application/*;q=0.2, text/event-stream;q=0.9", "sse"),
        (b"application/json;q=0, */*", "msgpack"),
        (b"application/json;q=x, application/msgpack;q=0.1", "msgpack"),
    ],
)
def test_the_best_answer_is_chosen(header: bytes | None, answer: str) -> None:
    assert answer_type(header) == answer


def test_only_what_is_offered_is_chosen_and_named() -> None:
    accept = b"text/event-stream, application/jsonl;q=0.5"
    assert answer_type(accept) == "sse"
    assert answer_type(accept, ("json", "jsonl")) == "jsonl"
    with pytest.raises(Problem) as caught:
        answer_type(b"text/*", ("json", "jsonl"), "; events are elsewhere")
    assert caught.value.detail == (
        "Accept one of application/json, application/jsonl; events are elsewhere"
    )


@pytest.mark.parametrize("header", [b"image/png", b"application/json;q=0"])
def test_no_answer_is_406(header: bytes) -> None:
    with pytest.raises(Problem, match="Accept one of") as caught:
        answer_type(header)
    assert caught.value.status == 406
