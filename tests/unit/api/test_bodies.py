"""Bodies that come in: arrays and JSON lines, split and checked without being decoded."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange import Exchange
from fake_cluster import FakeCluster
from hypotheses import examples
from jetmap.dispatch.sources import ELEMENT_BYTES
from jetmap.errors import JetmapError
from jetmap.settings import LimitSettings
from jetmap.wire.split import JsonLines, large, msgpack_array
from jetmap.wire.split.large import LEAST
from jetmap_api import bodies
from jetmap_api.bodies import ALLOWANCE, BodyPace, json_elements, msgpack_elements
from jetmap_api.problems import Problem, problem_of
from over_http import double
from raw_bodies import LIMITS, close, feed, held, run, values
from waiting import PATIENCE


def limits(**changes: int) -> LimitSettings:
    return LIMITS.replace(**changes)


def elements(body: bytes, chosen: LimitSettings = LIMITS) -> list[bytes]:
    return [bytes(raw) for raw in run(json_elements(body, chosen, held(chosen)))]


def refused(body: bytes, chosen: LimitSettings = LIMITS) -> Problem:
    with pytest.raises((Problem, JetmapError)) as caught:
        elements(body, chosen)
    return problem_of(caught.value, False)


@given(st.lists(values, max_size=12), st.booleans(), st.sampled_from([None, 1]))
def test_any_list_arrives_unchanged(items: list[Any], ascii: bool, indent: int | None) -> None:
    body = json.dumps(items, ensure_ascii=ascii, indent=indent).encode()
    assert [msgspec.json.decode(raw) for raw in elements(body)] == msgspec.json.decode(body)


@examples(60)
@given(st.lists(values, max_size=6), st.data())
def test_any_truncation_is_refused_in_pieces_too(items: list[Any], data: st.DataObject) -> None:
    body = json.dumps([0, *items] * 3, ensure_ascii=False).encode()
    cut = data.draw(st.integers(0, len(body) - 1))
    for piece in (24, bodies.PIECE):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bodies, "PIECE", piece)
            problem = refused(body[:cut])
            assert problem.status == 400
            assert problem.members["position"] <= cut


@pytest.mark.parametrize(
    ("body", "position", "words"),
    [
        (b"", 0, "empty"),
        (b"  ", 0, "empty"),
        (b"{}", 0, "not an array"),
        (b'"text"', 0, "not an array"),
        (b"nonsense", 4, "invalid"),
        (b"[1,2", 4, "too early"),
        (b"[1,]", 3, "trailing comma"),
        (b"[1 2]", 3, "expected ','"),
        (b"[1] x", 4, "trailing"),
        (b"[1, NaN]", 4, "invalid"),
        (b'["a", "\xff"]', 7, "UTF-8"),
        (b'["\xed\xa0\x80"]', 2, "UTF-8"),
        (b'["\\ud800"]', 10, "surrogate"),
        (b"[1,\xe9]", 3, "UTF-8"),
    ],
)
def test_a_malformed_body_is_refused_with_its_position(
    body: bytes, position: int, words: str
) -> None:
    problem = refused(body)
    assert problem.status == 400
    assert problem.members["position"] == position
    assert words in problem.detail


@pytest.mark.parametrize("depth", [501, 900, 2_000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_nesting_is_refused_with_its_position(
    depth: int, opening: bytes, closing: bytes
) -> None:
    body = b"[1," + opening * depth + b"1" + closing * depth + b"]"
    problem = refused(body)
    assert problem.status == 400
    assert problem.members["position"] == 3 + 500 * len(opening)
    assert "deeper than 500" in problem.detail


def test_nesting_up_to_the_limit_passes() -> None:
    item = b"[" * 500 + b"]" * 500
    assert elements(b"[1," + item + b"]") == [b"1", item]
    assert elements(b"[" + b",".join([item] * 20) + b"]") == [item] * 20


def test_limits_of_list_and_item() -> None:
    small = limits(max_list=3, max_item_bytes=5)
    assert elements(b"[1,2,3]", small) == [b"1", b"2", b"3"]
    problem = refused(b"[1,2,3,4]", small)
    assert (problem.status, problem.members["setting"]) == (413, "max_list")
    problem = refused(b'[1,"abcd"]', small)
    assert (problem.status, problem.members["setting"]) == (413, "max_item_bytes")
    assert problem.members["index"] == 1


@given(st.lists(values | st.binary(max_size=10), max_size=12))
def test_any_messagepack_list_arrives_unchanged(items: list[Any]) -> None:
    body = msgspec.msgpack.encode(items)
    raws = run(msgpack_elements(body, LIMITS, held()))
    assert [msgspec.msgpack.decode(raw) for raw in raws] == msgspec.msgpack.decode(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x81\x01\x02",
        b"\x93\x01",
        b"\x91\x01\x01",
        b"\x91\xc1",
        b"\x91\xa1\xff",
        b"\x91\x81\x81\x01\x02\x03",
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 100_000,
        b"\x91" * 600 + b"\x90",
    ],
)
def test_malformed_messagepack_is_refused(body: bytes) -> None:
    with pytest.raises((Problem, JetmapError)) as caught:
        run(msgpack_elements(body, LIMITS, held()))
    assert problem_of(caught.value, False).status == 400


def lines(body: bytes, cuts: list[int]) -> list[bytes]:
    split = JsonLines(LIMITS)
    edges = [0, *sorted(cuts), len(body)]
    found = []
    for start, end in itertools.pairwise(edges):
        found += feed(split, body[start:end])
    return found + close(split)


def test_depth_is_looked_for_only_where_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Any] = []
    monkeypatch.setattr(msgpack_array, "_levels", lambda value, most: looked.append(value) or 0)
    run(msgpack_elements(msgspec.msgpack.encode([{"a": [1]}] * 10_000), LIMITS, held()))
    assert looked == []
    run(msgpack_elements(msgspec.msgpack.encode([{"a": [1] * 1000}]), LIMITS, held()))
    assert len(looked) == 1


@pytest.mark.parametrize("media", ["json", "msgpack"])
def test_no_large_body_is_split_in_one_step(media: str) -> None:
    """Another request may come after each slice; no two elements are alike to guess from."""
    some = [1, "a,b", {"x": [1, {"y": "],"}]}, [[2], "]"], None, *[1.5] * 7]
    encode, split, most = {
        "json": (msgspec.json.encode, json_elements, bodies.PIECE),
        "msgpack": (msgspec.msgpack.encode, msgpack_elements, bodies.SLICE),
    }[media]
    body = encode(some * 20_000)
    hold = held()
    hold.add(2 * len(body))
    splitting = split(body, LIMITS, hold)
    for steps in itertools.count():
        try:
            splitting.send(None)
        except StopIteration as done:
            assert len(done.value) == 240_000 and steps >= len(body) // most
            break


def test_much_white_space_is_not_read_in_one_step() -> None:
    body = b" " * (4 * bodies.PIECE) + b'["%b"]' % (b"x" * LEAST)
    splitting = json_elements(body, LIMITS, held())
    for steps in itertools.count():
        try:
            splitting.send(None)
        except StopIteration as done:
            assert len(done.value) == 1 and steps >= 4
            break


@pytest.mark.parametrize("media", ["json", "msgpack"])
def test_large_items_are_views_of_their_body(media: str) -> None:
    items = [bytes([65 + n]) * 30_000 for n in range(25)]
    encode, split = {
        "json": (msgspec.json.encode, json_elements),
        "msgpack": (msgspec.msgpack.encode, msgpack_elements),
    }[media]
    body, hold = encode(items), held()
    assert len(body) > bodies.PIECE
    hold.add(2 * len(body))
    found = run(split(body, LIMITS, hold))
    assert all(type(element) is msgspec.Raw for element in found)
    assert [bytes(element) for element in found] == [encode(item) for item in items]
    assert hold.size == len(body) + 25 * (ELEMENT_BYTES + bodies.VIEW_BYTES)
    assert sys.getsizeof(memoryview(body)[1:2]) <= bodies.VIEW_BYTES
    # What is refused is refused as without them.
    for small, setting in (
        (limits(max_item_bytes=30_000), "max_item_bytes"),
        (limits(max_list=24), "max_list"),
    ):
        hold = held(small)
        hold.add(2 * len(body))
        with pytest.raises((Problem, JetmapError)) as caught:
            run(split(body, small, hold))
        problem = problem_of(caught.value, False)
        assert (problem.status, problem.members["setting"]) == (413, setting)


_TEXTS = st.integers(0, 14).map(lambda size: b'"%b"' % (b"a,]b\x7f" * 3)[:size])
_BINS = st.builds(
    lambda head, data: bytes([head]) + len(data).to_bytes(1 << (head - 0xC4), "big") + data,
    st.integers(0xC4, 0xC6),
    st.binary(max_size=14),
)
_ODD = {
    "json": [
        *[b"1", b'"\\ud800aa"', b'"aaaa\\"a"', b'"aaa\\xaa"', b'[[["aaaaaa"]]]', b""],
        *[b'"aaa\xffaa"', b'"\xed\xa0\x80aa"', b"\0"],
    ],
    "msgpack": [
        *[b"\x01", b"\xa7aaaaaaa", b"\xd9\x07aa\xffaaaa", b"\xc7\x07\x01aaaaaaa", b"\xc1"],
        b"\x91" * 4 + b"\x01",
    ],
}


@st.composite
def _bodies(draw: st.DrawFn, media: str) -> bytes:
    """Make a body of long elements, perhaps with an odd one or a fault anywhere."""
    is_json = media == "json"
    items = draw(st.lists(_TEXTS if is_json else _BINS, max_size=5))
    if draw(st.integers(0, 3)) == 0:
        items.append(draw(st.sampled_from(_ODD[media])))
    if is_json:
        space = st.sampled_from([b"", b"", b" ", b"\n\t\r ", b" " * 12])
        parts = [draw(space) + item + draw(space) for item in items]
        body = draw(space) + b"[" + b",".join(parts) + b"]" + draw(space)
    else:
        count = len(items) + draw(st.sampled_from([0, 0, 0, 0, 1, 100]))
        heads = [bytes([0x90 | count & 15]), b"\xdc" + count.to_bytes(2, "big")]
        heads.append(b"\xdd" + count.to_bytes(4, "big"))
        body = draw(st.sampled_from(heads)) + b"".join(items)
    if draw(st.booleans()):
        at = draw(st.integers(0, len(body)))
        new = draw(
            st.binary(max_size=1) | st.sampled_from([b'"', b"\\", b",", b"]", b"\xef\xbb\xbf"])
        )
        body = body[:at] + new + body[at + draw(st.sampled_from([0, 1, 1, 100])) :]
    return body


@examples(1000)
@given(st.data(), st.sampled_from(["json", "msgpack"]))
def test_splitting_large_items_in_place_changes_nothing(data: st.DataObject, media: str) -> None:
    """The same bodies are refused, for the same reasons, and the same bytes are reserved."""
    body = data.draw(_bodies(media))
    chosen = limits(max_item_bytes=14, max_list=4, max_depth=3)

    def outcome() -> Any:
        hold = held(chosen)
        hold.add(2 * len(body) if len(body) > bodies.PIECE else len(body))
        split = json_elements if media == "json" else msgpack_elements
        try:
            found = run(split(body, chosen, hold))
        except (Problem, JetmapError) as exc:
            return problem_of(exc, False).encode()
        return [bytes(element).strip(b" \n\t\r") for element in found], hold.size

    async def nothing(*_: Any) -> None:
        """Leave the body to the splitter."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bodies, "PIECE", 8)
        patch.setattr(bodies, "VIEW_BYTES", 0)
        patch.setattr(large, "LEAST", 6)
        in_place = outcome()
        patch.setattr(bodies, "_large", nothing)
        assert in_place == outcome()


# Bodies that stall


@pytest.mark.anyio
@pytest.mark.parametrize("media", ["application/json", "application/jsonl", "application/msgpack"])
async def test_a_map_whose_body_stalls_is_given_up(media: str) -> None:
    cluster = FakeCluster(double)
    exchange = Exchange(cluster, "/map/double", media, body_idle_timeout=0.05)
    await exchange.write(b"")
    await asyncio.wait_for(exchange.task, PATIENCE)
    assert exchange.status == 408
    [problem] = exchange.lines
    assert problem["setting"] == "body_idle_timeout" and "0.05" in problem["detail"]
    assert (cluster.memory.used, cluster.open_maps) == (0, 0)


@pytest.mark.anyio
@pytest.mark.parametrize("headers", [{}, {"x-jetmap-answer": "after-body"}])
async def test_a_streamed_answer_says_that_its_body_stalls(headers: dict[str, str]) -> None:
    lines = "application/jsonl"
    exchange = Exchange(
        FakeCluster(double), "/map/double", lines, lines, headers=headers, body_idle_timeout=0.2
    )
    await exchange.write(b"1\n")
    await asyncio.wait_for(exchange.task, PATIENCE)
    assert exchange.lines[0] == {"index": 0, "value": 2}
    assert exchange.lines[-1]["problem"]["status"] == 408


def test_a_body_that_drips_is_given_up() -> None:
    pace = BodyPace(idle=10, rate=100)
    assert pace.patience == 10
    waited = 0
    while pace.patience > 0:
        pace.came(1, 1.0)
        waited += 1
    assert waited == ALLOWANCE + 1
    assert pace.refusal("body_idle_timeout").members["setting"] == "min_body_rate"


def test_a_body_that_comes_steadily_is_not() -> None:
    pace = BodyPace(idle=10, rate=100)
    for _ in range(10_000):
        pace.came(200, 1.0)
        assert pace.patience > 0
    dripping = BodyPace(idle=10, rate=0)
    for _ in range(10_000):
        dripping.came(1, 9.0)
        assert dripping.patience == 10
    lines = BodyPace(idle=10, rate=100)
    for _ in range(10_000):
        lines.came(1, 9.0)
        lines.restart()
        assert lines.patience > 0


def test_pieces_without_bytes_are_silence() -> None:
    pace = BodyPace(idle=10, rate=0)
    for _ in range(10):
        pace.came(0, 1.0)
    assert pace.patience <= 0
