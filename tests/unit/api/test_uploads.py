"""Bodies of jobs: arrays that arrive in pieces, split as they come."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.errors import JetmapError
from jetmap.settings import LimitSettings
from jetmap.wire.split import JsonArray, MsgpackArray, json_array, splitter
from jetmap_api.bodies import json_elements, msgpack_elements
from jetmap_api.media import Body
from jetmap_api.problems import Problem, problem_of
from raw_bodies import LIMITS, close, feed, held, run, values

cuts = st.lists(st.integers(0, 400), max_size=10)
gather = st.sampled_from([0, 1, 7, 40, 1000])
windows = st.sampled_from([1, 3, 16, 4096])


def pieces(body: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(body)) for cut in at), len(body)]
    return [body[a:b] for a, b in itertools.pairwise(edges)]


def split(
    media: Body,
    parts: list[bytes],
    limits: LimitSettings = LIMITS,
    size: int = 0,
    window: int = 4096,
) -> list[bytes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JsonArray, "step", max(1, size))
        patch.setattr(MsgpackArray, "step", max(1, size))
        patch.setattr(json_array, "WINDOW", window)
        there = splitter(media, limits)
        found: list[bytes] = []
        for part in parts:
            found += feed(there, part)
        return found + close(there)


def refused(
    media: Body, parts: list[bytes], limits: LimitSettings = LIMITS, size: int = 0
) -> Problem:
    with pytest.raises((Problem, JetmapError)) as caught:
        split(media, parts, limits, size)
    return problem_of(caught.value, False)


@examples(300)
@given(
    st.lists(values, max_size=12), cuts, st.booleans(), st.sampled_from([None, 1]), gather, windows
)
def test_any_json_list_cut_anywhere_gives_the_same_elements(
    items: list[Any], at: list[int], ascii: bool, indent: int | None, size: int, window: int
) -> None:
    body = json.dumps(items, ensure_ascii=ascii, indent=indent).encode()
    whole = [bytes(raw) for raw in run(json_elements(body, LIMITS, held()))]
    found = split("json", pieces(body, at), size=size, window=window)
    assert [element.strip() for element in found] == whole


@given(st.lists(values, max_size=6), st.sampled_from([None, 1]))
def test_a_json_list_arrives_byte_by_byte(items: list[Any], indent: int | None) -> None:
    body = b" \n" + json.dumps(items, ensure_ascii=False, indent=indent).encode() + b"\r\n"
    whole = [bytes(raw) for raw in run(json_elements(body, LIMITS, held()))]
    found = split("json", [bytes((byte,)) for byte in body])
    assert [element.strip() for element in found] == whole


@examples(300)
@given(st.lists(values | st.binary(max_size=300), max_size=20), cuts, gather)
def test_any_messagepack_list_cut_anywhere_gives_the_same_elements(
    items: list[Any], at: list[int], size: int
) -> None:
    body = msgspec.msgpack.encode(items)
    whole = [bytes(raw) for raw in run(msgpack_elements(body, LIMITS, held()))]
    assert split("msgpack", pieces(body, at), size=size) == whole
    assert split("msgpack", [bytes((byte,)) for byte in body]) == whole


EVERY_TYPE: list[Any] = [
    *(0, 127, 128, 255, 256, 65535, 65536, 2**32, 2**64 - 1, -1, -32, -33, -128, -129),
    *(-32768, -32769, -(2**31), -(2**31) - 1, -(2**63), None, True, False, 1.5, 2**31),
    *("", "a" * 31, "a" * 32, "a" * 255, "a" * 256, "a" * 65536),
    *(b"", b"a" * 255, b"a" * 256, b"a" * 65536),
    *([], [1] * 15, [1] * 16, [[2] * 65536]),
    *({}, {str(n): n for n in range(15)}, {str(n): n for n in range(16)}),
    dict.fromkeys(map(str, range(65536)), 1),
    *(msgspec.msgpack.Ext(1, b"x" * n) for n in (0, 1, 2, 3, 4, 8, 16, 17, 255, 256, 65536)),
]


@pytest.mark.parametrize("step", [1000, 65536, 1 << 30])
def test_every_type_of_messagepack(step: int) -> None:
    items = [msgspec.msgpack.encode(item) for item in EVERY_TYPE]
    items += [b"\xca\x3f\x80\x00\x00", b"\xdd\x00\x00\x00\x01\x01", b"\xdf\x00\x00\x00\x00"]
    body = b"\xdc" + len(items).to_bytes(2, "big") + b"".join(items)
    assert split("msgpack", [body[i : i + step] for i in range(0, len(body), step)]) == items


def whole_body(media: Body, body: bytes, limits: LimitSettings = LIMITS) -> list[bytes] | Problem:
    """Return the elements, or the refusal, of a body that is read whole."""
    try:
        found = (json_elements if media == "json" else msgpack_elements)(body, limits, held(limits))
        return [bytes(raw) for raw in run(found)]
    except (Problem, JetmapError) as exc:
        return problem_of(exc, False)


TOKENS = ["[", "]", "{", "}", ",", ":", '"a"', '"', "\\", "1", "null", "-", " "]


@examples(500)
@given(
    st.lists(st.sampled_from(TOKENS), max_size=14),
    cuts,
    gather,
    windows,
)
def test_what_is_no_json_list_is_refused_however_it_is_cut(
    tokens: list[str], at: list[int], size: int, window: int
) -> None:
    body = "".join(tokens).encode()
    expected = whole_body("json", body)
    try:
        found = split("json", pieces(body, at), size=size, window=window)
    except (Problem, JetmapError) as exc:
        problem = problem_of(exc, False)
        assert isinstance(expected, Problem)
        assert problem.status == 400
        assert 0 <= problem.members["position"] <= len(body)
    else:
        assert [element.strip() for element in found] == expected


@examples(300)
@given(st.lists(values, min_size=1, max_size=6), st.data())
def test_a_damaged_json_list_is_refused(items: list[Any], data: st.DataObject) -> None:
    body = bytearray(json.dumps(items, ensure_ascii=False).encode())
    for _ in range(data.draw(st.integers(1, 2))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    expected = whole_body("json", bytes(body))
    parts = pieces(bytes(body), data.draw(cuts))
    if isinstance(expected, Problem):
        assert refused("json", parts).status == 400
    else:
        assert [element.strip() for element in split("json", parts)] == expected


@examples(300)
@given(st.lists(values | st.binary(max_size=40), min_size=1, max_size=6), st.data())
def test_a_damaged_messagepack_list_is_refused(items: list[Any], data: st.DataObject) -> None:
    body = bytearray(msgspec.msgpack.encode(items))
    for _ in range(data.draw(st.integers(1, 2))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    body = body[: data.draw(st.integers(0, len(body)))]
    expected = whole_body("msgpack", bytes(body))
    parts = pieces(bytes(body), data.draw(cuts))
    if isinstance(expected, Problem):
        problem = refused("msgpack", parts)
        # a length that is over the limit is refused before the body proves to be short
        assert problem.status in (400, 413)
    else:
        assert split("msgpack", parts) == expected


@pytest.mark.parametrize("media", ["json", "msgpack", "jsonl"])
@given(items=st.lists(values, min_size=1, max_size=6), data=st.data())
def test_any_truncation_is_refused(media: Body, items: list[Any], data: st.DataObject) -> None:
    if media == "msgpack":
        body = msgspec.msgpack.encode(items)
    else:
        body = json.dumps(items if media == "json" else {"a": items}).encode()
    cut = data.draw(st.integers(1 if media == "jsonl" else 0, len(body) - 1))
    assert refused(media, pieces(body[:cut], data.draw(cuts))).status == 400


@pytest.mark.parametrize(
    ("body", "position", "words"),
    [
        (b"", 0, "empty"),
        (b"  ", 0, "empty"),
        (b"{}", 0, "not an array"),
        (b'"text"', 0, "not an array"),
        (b"nonsense", 0, "not an array"),
        (b"[1,2", 4, "too early"),
        (b"[1,]", 3, "trailing comma"),
        (b"[,1]", 1, "expected|invalid"),
        (b"[ , ]", 2, "expected|invalid"),
        (b"[1,,2]", 3, "trailing comma|invalid|expected"),
        (b"[1 2]", 3, "expected ','"),
        (b"[1] x", 4, "trailing"),
        (b"[1][2]", 3, "trailing"),
        (b"[1, NaN]", 4, "invalid"),
        (b"[1}", 2, "expected"),
        (b'["a", "\xff"]', 7, "UTF-8"),
        (b'["\xed\xa0\x80"]', 2, "UTF-8"),
        (b"[1,\xe9]", 3, "UTF-8"),
        (b"\xef\xbb\xbf[1]", 0, "not an array"),
    ],
)
def test_a_malformed_body_is_refused_with_its_position(
    body: bytes, position: int, words: str
) -> None:
    for parts in ([body], [bytes((byte,)) for byte in body]):
        problem = refused("json", parts)
        assert problem.status == 400
        if words in ("empty", "not an array"):
            position = problem.members["position"]
        assert problem.members["position"] == position, problem.detail
        assert any(word in problem.detail for word in words.split("|")), problem.detail


def test_the_position_is_that_in_the_whole_body() -> None:
    body = b"[" + b'{"a": [1, 2]}, ' * 1000 + b"nul, 1]"
    whole = whole_body("json", body)
    assert isinstance(whole, Problem)
    for size in (0, 100, 1 << 20):
        problem = refused("json", pieces(body, list(range(0, 15_000, 700))), size=size)
        assert problem.status == 400
        assert problem.members["position"] == whole.members["position"] > 15_000


@pytest.mark.parametrize("depth", [501, 2_000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
@pytest.mark.parametrize("step", [997, 1 << 20])
def test_deep_nesting_is_refused(depth: int, opening: bytes, closing: bytes, step: int) -> None:
    body = b"[1," + opening * depth + b"1" + closing * depth + b"]"
    parts = [body[i : i + step] for i in range(0, len(body), step)]
    problem = refused("json", parts, size=JsonArray.step)
    assert problem.status == 400
    assert problem.members["position"] == 3 + 500 * len(opening)
    assert "deeper than 500" in problem.detail


def test_deep_messagepack_is_refused() -> None:
    for body in (b"\x91" * 100_000, b"\x91" * 600 + b"\x90"):
        assert refused("msgpack", [body]).status == 400


def test_nesting_up_to_the_limit_passes() -> None:
    item = b"[" * 500 + b"]" * 500
    body = b"[" + b",".join([item] * 20) + b"]"
    assert split("json", pieces(body, [700, 5000, 5001])) == [item] * 20
    item = b"\x91" * 499 + b"\x90"
    assert split("msgpack", [b"\x92", item, item]) == [item] * 2


@pytest.mark.parametrize("media", ["json", "msgpack", "jsonl"])
def test_an_item_over_its_size_is_refused_before_it_ends(media: Body) -> None:
    small = LIMITS.replace(max_item_bytes=100)
    encoded = {"json": b'[1,"', "msgpack": b"\x92\x01\xdb\x00\x01\x00\x00", "jsonl": b'1\n"'}
    for ending in ([b"x" * 200], [b"x"] * 200):
        problem = refused(media, [encoded[media], *ending], small)
        assert problem.status == 413
        assert problem.members["setting"] == "max_item_bytes"
        assert problem.members["index"] == 1
    complete = {"json": b'[1,"%b"]', "msgpack": b"\x92\x01\xd9\xc8%b", "jsonl": b'1\n"%b"\n'}
    problem = refused(media, [complete[media] % (b"x" * 200)], small)
    assert (problem.status, problem.members["index"]) == (413, 1)


def test_a_malformed_item_is_not_called_too_large() -> None:
    small = LIMITS.replace(max_item_bytes=100)
    assert refused("json", [b"[1,{nonsense" + b"x" * 200], small).status == 400


def test_the_length_of_the_list_is_not_limited() -> None:
    short = LIMITS.replace(max_list=2, max_body_bytes=10)
    assert len(split("json", [b"[" + b"1," * 99 + b"1]"], short)) == 100
    assert len(split("msgpack", [b"\xdc\x00\x64" + b"\x01" * 100], short)) == 100


@pytest.mark.parametrize("media", ["json", "msgpack", "jsonl"])
def test_a_long_body_takes_little_memory(media: Body) -> None:
    item = {"name": "some [text]", "values": [1, 2, {"a": "\\"}]}
    count = 120_000
    if media == "msgpack":
        head, element, last = b"\xdd" + count.to_bytes(4, "big"), msgspec.msgpack.encode(item), b""
    else:
        element = json.dumps(item).encode()
        head, last = (b"[", b"1]") if media == "json" else (b"", b"1\n")
        element += b"," if media == "json" else b"\n"
    block = element * 1000
    there = splitter(media, LIMITS)
    found = len(feed(there, head))
    for _ in range(20):  # what grows once, such as caches
        found += len(feed(there, block))
    tracemalloc.start()
    for _ in range(count // 1000 - 20):
        for start in range(0, len(block), 16_384):
            found += len(feed(there, block[start : start + 16_384]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    found += len(feed(there, last) + close(there))
    assert found == count + (media != "msgpack")
    assert peak < 8 << 20


def test_a_large_item_among_small_ones() -> None:
    large = json.dumps(["x" * 100, {"a": '"},'}] * 5000).encode()
    body = b"[1," + large + b",2," + large + b"]"
    parts = [body[i : i + 10_000] for i in range(0, len(body), 10_000)]
    there = JsonArray(LIMITS)
    found = [element for part in parts for element in feed(there, part)]
    assert found + close(there) == [b"1", large, b"2", large]
