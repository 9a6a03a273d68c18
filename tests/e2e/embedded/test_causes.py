"""``ItemRaised.__cause__`` is the function's own exception, wherever that can be had."""

from __future__ import annotations

import traceback

import pytest

from failing_functions import MAKERS, Plain, fail
from jetmap import Cluster, ItemError, ItemInvalid, ItemRaised, task

pytestmark = pytest.mark.anyio


async def test_each_is_the_functions_own(cluster: Cluster) -> None:
    values = await cluster.map(fail, list(MAKERS), return_exceptions=True)
    for name, error in zip(MAKERS, values, strict=True):
        made, cause = MAKERS[name](), error.__cause__
        assert isinstance(error, ItemRaised) and type(cause).__name__ == type(made).__name__
        assert isinstance(cause, type(made).__mro__[1])
        assert name == "hidden" or type(cause) is type(made)
        # The worker's traceback, from the function on: a note, or the exception's own inline.
        shown = "".join(traceback.format_exception(error))
        assert "in fail" in shown and shown.count("Traceback (most recent call last)") <= 4


async def test_each_way_to_get_an_error(cluster: Cluster) -> None:
    with pytest.raises(ItemRaised) as caught:
        await cluster.map(fail, ["plain"])
    assert type(caught.value.__cause__) is Plain and caught.value.__cause__.args[1] == 7
    async with cluster.stream(fail, ["plain"]) as stream:
        errors = [outcome.error async for outcome in stream]
    assert [type(error.__cause__) for error in errors if error] == [Plain]
    by_name = await cluster.map("failing.fail", ["plain", 5], return_exceptions=True)
    assert type(by_name[0].__cause__) is Plain
    # The function was not called for an item that does not fit.
    assert isinstance(by_name[1], ItemInvalid) and by_name[1].__cause__ is None


held: list[Exception] = []


@task(name="causes.keep")
def keep(n: int) -> int:
    held.append(ValueError(n))
    raise held[-1]


async def test_inline_it_is_the_very_same(inline: Cluster) -> None:
    items: list[object] = [1, "no number", 2]
    values = await inline.map("causes.keep", items, return_exceptions=True)
    assert [error.__cause__ for error in values if isinstance(error, ItemRaised)] == held
    assert [error.kind for error in values if isinstance(error, ItemError)] == [
        "raised", "invalid", "raised"
    ]  # fmt: skip
