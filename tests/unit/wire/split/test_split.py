"""Splitters give the same elements, and the same errors, wherever the bytes are cut."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.errors import LimitExceeded, Malformed
from jetmap.settings import LimitSettings
from jetmap.wire.split import NEED_DATA, JsonArray, JsonLines, MsgpackArray, Splitter, splitter

LIMITS = LimitSettings(max_item_bytes=900_000, max_depth=50)
FORMATS = ["json", "jsonl", "msgpack"]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('[]{},"\\ aü\N{GRINNING FACE}\n'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
cuts = st.lists(st.integers(0, 400), max_size=8)


@pytest.fixture(autouse=True)
def _split_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Split even the shortest piece, so that cuts fall everywhere."""
    monkeypatch.setattr(JsonArray, "step", 1)
    monkeypatch.setattr(MsgpackArray, "step", 1)


def body_of(format: str, items: list[Any]) -> bytes:
    if format == "msgpack":
        return msgspec.msgpack.encode(items)
    if format == "json":
        return json.dumps(items, ensure_ascii=False).encode()
    return b"".join(json.dumps(item, ensure_ascii=False).encode() + b"\n" for item in items)


def decoded(format: str, element: bytes) -> Any:
    return (msgspec.msgpack if format == "msgpack" else msgspec.json).decode(element)


def stripped(format: str, elements: list[bytes]) -> list[bytes]:
    """Remove the white space that JSON elements may keep."""
    return elements if format == "msgpack" else [element.strip() for element in elements]


def take(split: Splitter) -> list[bytes]:
    found: list[bytes] = []
    while elements := split.next_elements():
        found += map(bytes, elements)
    assert split.next_elements() is NEED_DATA
    return found


def run(
    format: str, body: bytes, at: list[int], limits: LimitSettings = LIMITS
) -> tuple[list[bytes], Exception | None]:
    """Feed a body cut at these positions; return the elements and the error."""
    split = splitter(format, limits, "send a list")  # type: ignore[arg-type]
    edges = [0, *sorted(min(cut, len(body)) for cut in at), len(body)]
    found: list[bytes] = []
    try:
        for start, end in itertools.pairwise(edges):
            split.feed(body[start:end])
            found += take(split)
        split.close()
        found += take(split)
    except (Malformed, LimitExceeded) as error:
        return found, error
    return found, None


@pytest.mark.parametrize("format", FORMATS)
@given(st.lists(values, max_size=8), cuts)
def test_any_cut_gives_the_same_elements(format: str, items: list[Any], at: list[int]) -> None:
    body = body_of(format, items)
    for positions in (at, [], list(range(len(body)))):
        found, error = run(format, body, positions)
        assert error is None
        assert [decoded(format, element) for element in found] == items


@pytest.mark.parametrize("format", FORMATS)
@examples(300)
@given(st.lists(values, min_size=1, max_size=6), st.data())
def test_a_damaged_body_is_refused_wherever_it_is_cut(
    format: str, items: list[Any], data: st.DataObject
) -> None:
    """Elements before the fault may have been returned already, and no others."""
    body = bytearray(body_of(format, items))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    whole, refused = run(format, bytes(body), [])
    found, error = run(format, bytes(body), data.draw(cuts))
    assert (error is None) == (refused is None)
    if error is None:
        assert stripped(format, found) == stripped(format, whole)
    elif isinstance(error, Malformed):
        assert 0 <= error.position <= len(body)


FAULTS = {
    "json": [
        b"",
        b"  ",
        b"{}",
        b"[1,2",
        b"[1,]",
        b"[1,,2]",
        b"[1 2]",
        b"[1] x",
        b"[1}",
        b'["a", "\xff"]',
        b"[1, NaN]",
        b"[1," + b"[" * 60 + b"]" * 60 + b"]",
    ],
    "jsonl": [
        b"1\n2\n3x\n",
        b"1\n[1\n",
        b'1\n"\xff"\n',
        b"1\n[1,",
        b"1\n" + b"[" * 51 + b"]" * 51 + b"\n",
    ],
    "msgpack": [
        b"",
        b"\x01",
        b"\xdc\x00",
        b"\x92\x01",
        b"\x91\x01\x02",
        b"\x92\x01\xa1\xff",
        b"\x92\x01\xc1",
        b"\x92\x01\x81\x91\x81\xa1a\x01\x02",
        b"\x92\x01" + b"\x91" * 60 + b"\x01",
        b"\x92\x01\xd6\xff\x00",
        b"\x92\xc7\x08\xff" + b"\xff" * 8 + b"\x01",
    ],
}


@pytest.mark.parametrize(
    ("format", "body"), [(format, body) for format in FAULTS for body in FAULTS[format]]
)
def test_a_fault_has_the_same_position_wherever_it_is_cut(format: str, body: bytes) -> None:
    positions = set()
    for at in ([], *([cut] for cut in range(1, len(body))), list(range(len(body)))):
        _, error = run(format, body, at)
        assert isinstance(error, Malformed), at
        positions.add((error.line, error.position))
    assert len(positions) == 1, positions


@pytest.mark.parametrize("format", FORMATS)
def test_an_item_over_its_size_is_refused_before_it_ends(format: str) -> None:
    limits = LIMITS.replace(max_item_bytes=100)
    start = {"json": b'[1,"', "msgpack": b"\x92\x01\xdb\x00\x01\x00\x00", "jsonl": b'1\n"'}[format]
    _, error = run(format, start + b"x" * 200, [10, 50], limits)
    assert isinstance(error, LimitExceeded)
    assert (error.setting, error.limit, error.index) == ("max_item_bytes", 100, 1)


def test_a_size_that_the_head_announces_is_refused_at_once() -> None:
    split = MsgpackArray(LIMITS)
    split.feed(b"\x91\xc6\x7f\xff\xff\xff")
    with pytest.raises(LimitExceeded, match="2147483652 bytes"):
        split.next_elements()


def test_the_advice_is_given_for_other_things_than_lists() -> None:
    for format, body in (("json", b"{}"), ("json", b""), ("msgpack", b"\x01"), ("msgpack", b"")):
        _, error = run(format, body, [])
        assert str(error).endswith(": send a list"), error


def test_lines_are_returned_as_they_come_and_arrays_by_the_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = JsonLines(LIMITS)
    lines.feed(b"1\n2")
    assert take(lines) == [b"1"]
    monkeypatch.setattr(JsonArray, "step", 8)
    array = JsonArray(LIMITS)
    array.feed(b"[1,2,3,")
    assert array.next_elements() is NEED_DATA
    array.feed(b"4,")
    assert take(array) == [b"1", b"2", b"3", b"4"]
    array.feed(b"5]")
    array.close()
    assert take(array) == [b"5"]


def test_extension_types_pass_undecoded() -> None:
    items = [msgspec.msgpack.Ext(1, b"x" * size) for size in (0, 1, 2, 3, 4, 8, 16, 17, 300)]
    body = msgspec.msgpack.encode(items)
    found, error = run("msgpack", body, list(range(len(body))))
    assert error is None
    assert found == [msgspec.msgpack.encode(item) for item in items]
