"""A malformed MessagePack body is refused with the position of what is wrong, as JSON is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_cluster import FakeCluster, gateway
from jetmap.errors import JetmapError
from jetmap.wire.split import splitter
from jetmap.wire.split.msgpack_faults import find_fault
from jetmap_api import bodies
from jetmap_api.problems import Problem, problem_of
from jobs_over_http import site
from over_http import check_problem, echo
from raw_bodies import LIMITS, close, feed, held, run, values

pytestmark = pytest.mark.anyio

encode = msgspec.msgpack.encode


def whole(body: bytes, **limits: int) -> Problem | None:
    try:
        run(bodies.msgpack_elements(body, LIMITS.replace(**limits), held()))
    except (Problem, JetmapError) as exc:
        return problem_of(exc, False)
    return None


def in_parts(body: bytes, step: int, **limits: int) -> Problem | None:
    split = splitter("msgpack", LIMITS.replace(**limits))
    try:
        for at in range(0, len(body), step):
            feed(split, body[at : at + step])
        close(split)
    except (Problem, JetmapError) as exc:
        return problem_of(exc, False)
    return None


def array(*items: bytes, count: int | None = None) -> bytes:
    return b"\xdd" + (count or len(items)).to_bytes(4, "big") + b"".join(items)


GOOD = encode({"a": [1, "ü", None, 2.5, b"\xff", -70_000, 2**40]})
TEXT = encode("x" * 300)
FAULTS = {
    "bad text": (array(GOOD, TEXT, b"\xa3a\xffb"), 2, 2),
    "bad key": (array(GOOD, b"\x81\xa2b\xfe\x01"), 1, 3),
    "bad long text": (array(GOOD, b"\xda\x01\x00" + b"y" * 200 + b"\xc3" * 56), 1, 203),
    "first item": (b"\x92\xa1\xff\x01", 0, 1),
    "behind many": (array(*[b"\x01"] * 10_000, b"\xa2\xc3("), 10_000, 1),
    "too deep": (array(GOOD, b"\x91" * 501 + b"\x01"), 1, 500),
    "too deep, maps": (array(GOOD, b"\x81\xa1a" * 700 + b"\x01"), 1, 1500),
    "too deep to skip": (array(GOOD, b"\x91" * 100_000 + b"\x01"), 1, 500),
    "list as a key": (array(GOOD, GOOD, b"\x81\x91\x81\xa1a\x01\x02"), 2, 0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_position(fault: str) -> None:
    body, item, inside = FAULTS[fault]
    start = 1 if body[0] == 0x92 else 5
    items = {"behind many": [b"\x01"] * 10_000, "first item": []}.get(fault, [GOOD, TEXT][:item])
    if fault == "list as a key":
        items = [GOOD, GOOD]
    at = start + sum(map(len, items)) + inside
    found = [whole(body), in_parts(body, len(body)), in_parts(body, 64)]
    for problem in found:
        assert problem is not None
        assert (problem.status, problem.slug) == (400, "malformed-body")
        assert problem.members["position"] == at
        assert f"at byte {at}" in problem.detail
    if "deep" in fault:
        assert all("deeper than 500 levels" in p.detail for p in found if p)
        assert all("flatten the items, or raise max_depth" in p.detail for p in found if p)
    elif fault == "list as a key":
        assert all("item 2" in p.detail for p in found if p)
    else:
        assert all("encode the input as UTF-8" in p.detail for p in found if p)


@given(values, st.integers(1, 6))
def test_depth_is_counted_as_in_json(value: Any, limit: int) -> None:
    limits = LIMITS.replace(max_depth=limit)
    try:
        run(bodies.json_elements(msgspec.json.encode([1, value]), limits, held()))
        fits = True
    except (Problem, JetmapError):
        fits = False
    body = encode([1, value])
    for problem in (whole(body, max_depth=limit), in_parts(body, 7, max_depth=limit)):
        assert (problem is None) == fits
        fault = find_fault(body, limit + 1)
        if problem is not None:
            assert fault is not None
            assert problem.members["position"] == fault.position
        else:
            assert fault is None


@given(st.lists(st.text(min_size=1), min_size=1), st.data())
def test_any_damaged_text(texts: list[str], data: st.DataObject) -> None:
    chosen = data.draw(st.integers(0, len(texts) - 1))
    items = [encode(text) for text in texts]
    item = items[chosen]
    raw = texts[chosen].encode()
    bad = data.draw(st.integers(0, len(raw) - 1))
    damaged = raw[:bad] + b"\xff" + raw[bad + 1 :]
    items[chosen] = item[: len(item) - len(raw)] + damaged
    with pytest.raises(UnicodeDecodeError) as caught:
        damaged.decode()
    at = 5 + sum(map(len, items[:chosen])) + len(item) - len(raw) + caught.value.start
    body = array(*items)
    for problem in (whole(body), in_parts(body, 5), in_parts(body, 1 << 20)):
        assert problem is not None
        assert problem.members["position"] == at


@pytest.mark.parametrize("path", ["/map/echo", "/jobs/echo"])
@pytest.mark.parametrize(
    ("body", "position"), [(b"\x92\x01\xa1\xff", 3), (b"\x92\x01" + b"\x91" * 600 + b"\x90", 502)]
)
async def test_over_http(path: str, body: bytes, position: int) -> None:
    cluster: FakeCluster
    cluster, _ = site(echo)
    headers = {"content-type": "application/msgpack"}
    async with gateway(cluster) as client:
        response = await client.post(path, content=body, headers=headers)
    assert check_problem(response, 400, "malformed-body")["position"] == position
