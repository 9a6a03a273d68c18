"""References to values that were put: where they fit, and how long they last."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest

from jetmap import Cluster, Ref, Unencodable, task

pytestmark = pytest.mark.anyio


@task(name="refs_pick")
def pick(i: int, *, table: Any, by: int = 1) -> Any:
    return table[i] * by


@task(name="refs_whole")
def whole(i: int, *, table: Any) -> Any:
    return id(table)


@task(name="refs_anything")
def anything(item: Any) -> Any:
    return item


async def test_functions_get_the_value(inline: Cluster) -> None:
    with await inline.put([1, 2, 3]) as ref:
        kwargs = {"table": ref, "by": 2}
        assert await inline.map(pick, range(3), kwargs=kwargs) == [2, 4, 6]
        assert await inline.map("refs_pick", range(3), kwargs=kwargs) == [2, 4, 6]
        found = [o.value async for o in inline.stream(pick, [2], kwargs={"table": ref})]
        assert found == [3]
        assert len(set(await inline.map(whole, range(50), kwargs={"table": ref}))) == 1


async def test_later_changes_of_the_original_do_not_count(inline: Cluster) -> None:
    value = [1]
    with await inline.put(value) as ref:
        value[0] = 2
        assert await inline.map(pick, [0], kwargs={"table": ref}) == [1]


async def test_a_closed_reference_is_refused_and_says_so(inline: Cluster) -> None:
    ref = await inline.put("abc")
    assert "bytes" in repr(ref) and not ref.is_closed and ref.size > 3
    ref.close()
    ref.close()
    assert ref.is_closed and "closed" in repr(ref)
    with pytest.raises(ValueError, match="the Ref for 'table' is closed: put the value again"):
        await inline.map(pick, [0], kwargs={"table": ref})


async def test_a_reference_belongs_to_its_cluster(inline: Cluster) -> None:
    async with Cluster(inline=True) as other:
        ref = await other.put("abc")
        with pytest.raises(ValueError, match="'table' was put into another cluster"):
            await inline.map(pick, [0], kwargs={"table": ref})
    assert ref.is_closed


async def test_a_value_is_dropped_with_its_last_reference(inline: Cluster) -> None:
    one, two = await inline.put([1] * 100), await inline.put([1] * 100)
    digest, kept = one._constant.digest, inline._constants
    assert two._constant.digest == digest
    del one
    assert digest in kept
    # The garbage collector may run in any thread.
    references = [two]
    del two
    await asyncio.to_thread(references.clear)
    await asyncio.sleep(0)
    assert digest not in kept


@pytest.mark.parametrize("inside", [False, True])
async def test_a_reference_travels_in_kwargs_only(inline: Cluster, inside: bool) -> None:
    with await inline.put("abc") as ref:
        item = [ref] if inside else ref
        with pytest.raises(Unencodable, match="give it in kwargs, by itself"):
            await inline.map(anything, [item])
        with pytest.raises(TypeError, match="give it in kwargs, by itself"):
            await inline.map(pick, [1], kwargs={"table": [ref]})
        with pytest.raises(Unencodable, match="give it in kwargs, by itself"):
            await inline.map(pick, [item], kwargs={"table": ref})  # type: ignore[list-item]
        with pytest.raises(TypeError, match="give it in kwargs, by itself"):
            pickle.dumps(ref)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [({"other": 1}, "unexpected keyword argument 'other'"), ({"by": "x"}, "Expected `int`")],
)
async def test_other_parameters_are_checked_as_ever(
    inline: Cluster, kwargs: dict[str, Any], message: str
) -> None:
    with await inline.put("abc") as ref, pytest.raises(TypeError, match=message):
        await inline.map(pick, [1], kwargs={"table": ref, **kwargs})
    with await inline.put("abc") as ref, pytest.raises(TypeError, match=r"misses .*'table'"):
        await inline.map(pick, [1], kwargs={"by": 1})
    with await inline.put("abc") as ref, pytest.raises(TypeError, match=r"unexpected .*'nope'"):
        await inline.map(pick, [1], kwargs={"nope": ref})


def test_blocking_code_puts_values_too() -> None:
    with Cluster(inline=True).sync as cluster:
        ref: Ref[list[int]] = cluster.put([4, 5])
        assert cluster.map(pick, [1], kwargs={"table": ref}) == [5]
        ref.close()
    again = ref
    again.close()  # Its loop has ended.
