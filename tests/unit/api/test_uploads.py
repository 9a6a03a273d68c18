"""Bodies of jobs: arrays that arrive in pieces, split as they come."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from typing import Any, cast

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
from raw_bodies import LIMITS, close, feed, held, run

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


def test_nesting_up_to_the_limit_passes() -> None:
    item = b"[" * 500 + b"]" * 500
    body = b"[" + b",".join([item] * 20) + b"]"
    assert split("json", pieces(body, [700, 5000, 5001])) == [item] * 20
    item = b"\x91" * 499 + b"\x90"
    assert split("msgpack", [b"\x92", item, item]) == [item] * 2


def test_deep_nesting_is_refused() -> None:
    for media, body in (("jsonl", b"1\n" + b"[" * 100_000), ("json", b"[" * 100_000)):
        assert "deeper than 500" in refused(cast(Body, media), [body]).detail


def test_a_malformed_item_is_not_called_too_large() -> None:
    small = LIMITS.replace(max_item_bytes=100)
    assert refused("json", [b"[1,{nonsense" + b"x" * 200], small).status == 400


def test_the_length_of_the_list_is_not_limited() -> None:
    short = LIMITS.replace(max_list=2, max_body_bytes=10)
    assert len(split("json", [b"[" + b"1," * 99 + b"1]"], short)) == 100
    assert len(split("msgpack", [b"\xdc\x00\x64" + b"\x01" * 100], short)) == 100


@pytest.mark.parametrize(
    "media", ["json", "msgpack", pytest.param("jsonl", marks=pytest.mark.slow)]
)
def test_a_long_body_takes_little_memory(media: Body) -> None:
    item = {"name": "some [text]", "values": [1, 2, {"a": "\\"}]}
    count = 60_000
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
