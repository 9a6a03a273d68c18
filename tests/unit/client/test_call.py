"""Calls: codecs and formats, keyword parameters, whole lists, and values that do not fit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import msgspec
import pytest

from jetmap import ItemRaised, TooLarge, Unencodable, UnknownFunction, task
from jetmap.client.call import Call, first_error, listed
from jetmap.dispatch.outcomes import Batch, Decoded
from jetmap.functions.task import find
from jetmap.wire.messages import ErrorRecord
from jetmap.wire.presence import FunctionInfo

pytestmark = pytest.mark.anyio


@task(name="call.typed")
def typed(n: int, *, by: int = 2) -> int:
    return n * by


@task(name="call.untyped")
def untyped(n, *, by=2):  # type: ignore[no-untyped-def]
    return n * by


def info(function: Callable[..., Any]) -> Callable[[str], FunctionInfo | None]:
    found = find(function)
    assert found is not None
    return lambda name: found.info() if name == found.name else None


def test_annotations_choose_the_format() -> None:
    assert Call.of(typed, None).format == "msgpack"
    assert Call.of(untyped, None).format == "python"
    for function, format in ((typed, "msgpack"), (untyped, "python")):
        call = Call.of(find(function).name, None, info=info(function))  # type: ignore[union-attr]
        assert (call.function, call.format, call.item_format) == (None, format, format)


def test_keyword_parameters_are_encoded_and_checked() -> None:
    assert msgspec.msgpack.decode(Call.of(typed, {"by": 3}).kwargs) == {"by": 3}
    assert Call.of(typed, {}).kwargs == b""
    for wrong in ({"by": "3"}, {"to": 3}):
        with pytest.raises(TypeError, match=r"keyword parameters of call\.typed"):
            Call.of(typed, wrong)
    call = Call.of("call.typed", {"to": 3}, info=info(typed))
    with pytest.raises(TypeError, match=r"keyword parameters of call\.typed"):
        call.check(info(typed)("call.typed"))
    call.check(None)


def test_a_name_must_be_known_where_it_runs() -> None:
    wanted = r"'call\.nope' is registered in this process.*; .* registered: .*call\.typed"
    with pytest.raises(UnknownFunction, match=wanted):
        Call.of("call.nope", None, local=True)
    with pytest.raises(UnknownFunction, match=r"did you mean 'call\.typed'\?"):
        Call.of("call.typd", None, local=True)
    assert Call.of("call.typed", None, local=True).function is find(typed)


async def test_a_bad_item_of_a_list_is_found_before_any_runs() -> None:
    call = Call.of(untyped, None)
    items: list[Any] = [0] * 5000
    assert len(await call.prepared(items)) == 5000
    items[4321] = lambda: None
    with pytest.raises(Unencodable) as caught:
        await call.prepared(items)
    assert caught.value.index == 4321
    # The format of annotated items keeps their types, so that they need no look before.
    assert await Call.of(typed, None).prepared(items) is items


def test_values_with_an_error_in_each_failed_items_place() -> None:
    call = Call.of(typed, None)
    assert call.values(Batch(0, 2, msgspec.msgpack.encode([1, 2]))) == [1, 2]
    record = ErrorRecord(8, "raised", "ValueError", "no")
    values = call.values(Batch(7, 3, msgspec.msgpack.encode([1, None, "x"]), [record]))
    assert values[0] == 1
    assert isinstance(values[1], ItemRaised) and values[1].index == 8
    assert isinstance(values[2], Unencodable) and values[2].index == 9
    assert "does not fit its annotation" in values[2].message
    assert first_error(values) is values[1]
    assert first_error([1, 2]) is None
    assert call.failed(Batch(7, 3, b"", [record]), values) is values[1]
    assert call.failed(Batch(0, 2, cast(bytes, Decoded([1, 2], 9))), [1, 2]) is None


def test_values_that_were_decoded_are_given_as_they_are() -> None:
    call = Call.of(typed, None)
    assert call.values(Batch(0, 2, cast(bytes, Decoded([1, 2], 100)))) == [1, 2]
    array = memoryview(msgspec.msgpack.encode([1, 2]))
    assert call.decode_owned(array) == [1, 2]
    assert call.without_values().decode_owned(array) is None
    pickling = Call.of(untyped, None, pickles=lambda name: "near", trusted=True)
    assert pickling.decode_owned(array) == [1, 2]
    assert msgspec.structs.replace(pickling, trusted=False).decode_owned(array) is None


def test_values_of_a_job_decode_to_the_type_of_its_function() -> None:
    batch = Batch(0, 1, b'["1"]')
    assert Call.reading(None).values(batch, "json") == ["1"]
    assert isinstance(Call.reading(typed).values(batch, "json")[0], Unencodable)
    with pytest.raises(TypeError, match="is not a @task"):
        Call.reading(len)


async def test_a_list_ends_at_its_limit() -> None:
    async def endless() -> AsyncIterator[int]:
        while True:
            yield taken.append(1) or len(taken)  # type: ignore[func-returns-value]

    taken: list[int] = []
    same = [1, 2, 3]
    assert await listed(same, 3) is same
    assert await listed(iter(same), 3) == same
    with pytest.raises(TooLarge, match=r"has 3 items; the limit is 2 \(setting max_list"):
        await listed(same, 2)
    for items in (iter(range(100)), endless()):
        with pytest.raises(TooLarge, match="has 3 items or more") as caught:
            await listed(items, 2)
        assert (caught.value.setting, caught.value.limit, caught.value.value) == ("max_list", 2, 3)
    assert len(taken) == 3
