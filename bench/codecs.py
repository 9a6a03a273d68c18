"""Rows of codecs: values without annotations there and back, in this process, by CPU time.

Nothing travels. The baseline is msgspec, which would lose tuples and refuse objects; beside it is
what pickle takes for the whole list at once, which no codec that pickles can be much faster than.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial
from statistics import median
from time import process_time
from typing import Any

import msgspec

from jetmap import task
from jetmap.functions.task import find

from .measure import Measure, interleaved, median_ratio
from .run import Run
from .table import Row, Target, seconds

ITEMS = 2_000
TURNS = 4  # Times that a list goes there and back in one measurement.


@task(name="bench.anything")
def anything(value: Any) -> Any:
    return value


SHAPES: dict[str, Callable[[int], Any]] = {
    "dicts of 2": lambda n: {"id": n, "name": f"user {n}"},
    "dicts of 4": lambda n: {"id": n, "name": f"user {n}", "price": n * 0.37, "ok": n % 2 == 0},
    "nested dicts": lambda n: {"id": n, "tags": ["a", "b"], "at": {"x": n * 0.5, "y": 2.0}},
}


async def codecs(run: Run) -> list[Row]:
    """Small dicts, between processes that trust each other."""
    return [await _row(run, name, make) for name, make in SHAPES.items()]


async def _row(run: Run, name: str, make: Callable[[int], Any]) -> Row:
    values = list(map(make, range(ITEMS)))
    function = find(anything)
    assert function is not None
    codec = function.pickling().item
    encode = msgspec.msgpack.Encoder().encode
    decode = msgspec.msgpack.Decoder(list[Any]).decode
    ways: dict[str, Callable[[], list[Any]]] = {
        "msgspec": lambda: decode(encode(values)),
        "pickle": lambda: pickle.loads(pickle.dumps(values, 5)),
        "jetmap": lambda: codec.decode_list(codec.encode_list(values, "pickle"), "pickle"),
    }
    assert all(way() == values for way in ways.values())
    contenders: dict[str, Measure] = {
        way: partial(_cpu_each, go, run.scaled(TURNS)) for way, go in ways.items()
    }
    samples = await interleaved(4 * run.runs, contenders)
    floor = median_ratio(samples["pickle"], samples["msgspec"])
    return Row(
        f"codecs-{name.replace(' ', '-')}",
        f"CPU of {name} without annotations, there and back, each",
        aside=f"{seconds(median(samples['pickle']))} (pickle alone, {floor:.2f})",
        baseline=f"{seconds(median(samples['msgspec']))} (msgspec)",
        jetmap=seconds(median(samples["jetmap"])),
        figure=median_ratio(samples["jetmap"], samples["msgspec"]),
        target=Target("at most", 1.5),
        samples=samples,
    )


async def _cpu_each(go: Callable[[], list[Any]], turns: int) -> float:
    began = process_time()
    for _ in range(turns):
        go()
    return (process_time() - began) / turns / ITEMS
