"""Elements that are all large, beside what the splitters say of the same bytes."""

from __future__ import annotations

import base64
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetmap.errors import JetmapError
from jetmap.wire.messages import Format
from jetmap.wire.split import JsonArray, MsgpackArray
from jetmap.wire.split.large import LEAST, NotLargeError, large_elements
from raw_bodies import LIMITS, close, feed

sizes = st.lists(st.sampled_from([LEAST, LEAST + 1, 70_000]), min_size=1, max_size=20)


def split(body: bytes, format: Format) -> list[bytes]:
    splitter = JsonArray(LIMITS) if format == "json" else MsgpackArray(LIMITS)
    return feed(splitter, body) + close(splitter)


def found(body: bytes, format: Format, most: int = LIMITS.max_item_bytes) -> list[bytes]:
    return [bytes(element) for element in large_elements(body, format, most)]


@given(sizes, st.sampled_from([None, 2]), st.sampled_from([",", ", ", " ,\n"]))
def test_long_strings_are_found_where_the_splitter_finds_them(
    sizes: list[int], indent: int | None, comma: str
) -> None:
    items = [base64.b64encode(bytes([n]) * size).decode() for n, size in enumerate(sizes)]
    body = json.dumps(items, indent=indent, separators=(comma, ":")).encode()
    assert found(body, "json") == [element.strip() for element in split(body, "json")]
    assert [json.loads(element) for element in found(body, "json")] == items


@given(sizes)
def test_long_bytes_are_found_where_the_splitter_finds_them(sizes: list[int]) -> None:
    body = msgspec.msgpack.encode([bytes([n]) * size for n, size in enumerate(sizes)])
    assert found(body, "msgpack") == split(body, "msgpack")


@given(st.data(), st.sampled_from(["json", "msgpack"]))
def test_no_faulty_body_is_accepted(data: st.DataObject, format: Format) -> None:
    """Change, drop or add bytes where it matters: around the elements."""
    items = [bytes([65 + n]) * (LEAST + n) for n in range(3)]
    texts = [item.decode() for item in items]
    body = msgspec.json.encode(texts) if format == "json" else msgspec.msgpack.encode(items)
    edges = [n for start in (0, 1003, 2008, 3014) for n in range(start, min(start + 9, len(body)))]
    at = data.draw(st.sampled_from([*edges, 500, len(body) - 1]))
    new = data.draw(st.binary(max_size=2) | st.sampled_from([b'"', b"\\", b" ", b",", b"\n"]))
    changed = body[:at] + new + body[at + data.draw(st.integers(0, 2)) :]
    try:
        elements = found(changed, format)
    except NotLargeError:
        return
    expected = split(changed, format)
    if format == "json":  # A view of an element has the spaces around it, or not.
        expected = [element.strip(b" \n\r\t") for element in expected]
    assert elements == expected


@pytest.mark.parametrize(
    ("body", "format"),
    [
        (b"[]", "json"),
        (b"", "json"),
        (b"", "msgpack"),
        (b"\x90", "msgpack"),
        (msgspec.json.encode(["x" * LEAST, 1]), "json"),
        (msgspec.json.encode(["x" * LEAST, "x" * 10]), "json"),
        (msgspec.json.encode(["ü" * LEAST]), "json"),
        (msgspec.json.encode(["\\" * LEAST]), "json"),
        (b'["' + b"x" * LEAST + b'\n"]', "json"),
        (b'["' + b"x" * LEAST + b'"] 1', "json"),
        (b'["' + b"x" * LEAST + b'",]', "json"),
        (b'["' + b"x" * LEAST, "json"),
        (msgspec.msgpack.encode([b"x" * LEAST, 1]), "msgpack"),
        (msgspec.msgpack.encode(["x" * LEAST]), "msgpack"),
        (msgspec.msgpack.encode([b"x" * LEAST]) + b"\x00", "msgpack"),
        (msgspec.msgpack.encode([b"x" * LEAST])[:-1], "msgpack"),
        (msgspec.msgpack.encode([b"x" * LEAST])[:2], "msgpack"),
    ],
)
def test_anything_else_is_left_to_the_splitters(body: bytes, format: Format) -> None:
    with pytest.raises(NotLargeError):
        found(body, format)


@pytest.mark.parametrize("shape", [b" [I]", b"[ I]", b"[I ]", b"[I] ", b"[I, I]", b"[I ,I]"])
@pytest.mark.parametrize("spaces", [1000, 1001])
def test_much_white_space_is_left_to_the_splitter(shape: bytes, spaces: int) -> None:
    """It would be looked at in one step."""
    item, space = b'"%b"' % (b"x" * LEAST), b" " * spaces
    body = shape.replace(b" ", space).replace(b"I", item)
    if spaces == 1000:
        assert found(body, "json") == [item] * body.count(item)
    else:
        with pytest.raises(NotLargeError):
            found(body, "json")


@pytest.mark.parametrize("format", ["json", "msgpack"])
def test_an_element_beyond_the_most_is_left_to_the_splitter(format: Format) -> None:
    item = "x" * 2000 if format == "json" else b"x" * 2000
    body = msgspec.json.encode([item]) if format == "json" else msgspec.msgpack.encode([item])
    size = {"json": 2002, "msgpack": 2003}[format]
    assert [len(element) for element in found(body, format, size)] == [size]
    with pytest.raises(NotLargeError):
        found(body, format, size - 1)


def test_the_splitter_refuses_what_is_left_to_it() -> None:
    with pytest.raises(JetmapError, match="too early"):
        split(b'["' + b"x" * LEAST, "json")
