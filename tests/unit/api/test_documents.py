"""JSON documents as answers."""

from __future__ import annotations

from jetmap_api.documents import answer, done


def test_an_answer_is_never_stored() -> None:
    made = answer(b"{}", 202, [(b"x", b"y")])
    assert made.status_code == 202 and made.headers["x"] == "y"
    assert made.headers["cache-control"] == "no-store"
    assert made.headers["content-type"] == "application/json"


def test_what_was_done_has_no_document() -> None:
    made = done()
    assert (made.status_code, made.body, made.headers["cache-control"]) == (204, b"", "no-store")
