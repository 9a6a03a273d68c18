"""The work beside the demo's maps, without a gateway."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from jetmap.demo import beside
from jetmap.demo.beside import MOST_JOBS, jobs, short_maps
from jetmap.demo.http import DemoError, GatewayClient
from waiting import PATIENCE


class Gateway:
    """Answers at once, until it has been asked so often; then the demo is over."""

    def __init__(self, asked: int) -> None:
        self.over = threading.Event()
        self.left = asked
        self.submitted: list[str] = []
        self.deleted: list[str] = []
        self.refusals: list[Exception] = []
        self.maps = 0
        self.closed = False

    def another(self) -> Gateway:
        return self

    def close(self) -> None:
        self.closed = True

    def _on_ask(self) -> None:
        self.left -= 1
        if not self.left:
            self.over.set()
        if self.refusals:
            raise self.refusals.pop(0)

    def submit(self, function: str, items: Any, labels: str) -> str:
        self.submitted.append(f"j{len(self.submitted)}")
        self._on_ask()
        return self.submitted[-1]

    def is_over(self, job: str) -> bool:
        return True

    def delete(self, job: str) -> None:
        self.deleted.append(job)

    def map(self, function: str, items: Any) -> Iterator[Any]:
        self.maps += 1
        self._on_ask()
        yield None


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "JOB_SECONDS", 0.0)
    monkeypatch.setattr(beside, "SHORT_SECONDS", 0.0)


def client(made: Gateway) -> GatewayClient:
    return cast(GatewayClient, made)


def test_jobs_follow_one_another_and_the_oldest_are_removed() -> None:
    made = Gateway(MOST_JOBS + 3)
    jobs(client(made), made.over, ["a.py"])
    assert len(made.submitted) == MOST_JOBS + 3
    assert made.deleted == made.submitted[:3]


def test_what_is_cancelled_by_somebody_begins_again_and_a_gateway_that_is_gone_ends_it() -> None:
    made = Gateway(10)
    made.refusals = [DemoError("it was cancelled"), ConnectionResetError()]
    beside._run(short_maps, client(made), made.over)
    assert made.maps == 2 and made.closed
    assert not made.over.is_set(), "it was the gateway that ended it"


def test_both_go_on_until_the_block_ends() -> None:
    made = Gateway(-1)
    before = threading.active_count()
    with beside.work_beside(client(made), ["a.py"]):
        while not (made.maps and made.submitted):
            pass
    for thread in threading.enumerate():
        if thread.name == "demo-beside":
            thread.join(PATIENCE)
    assert threading.active_count() <= before
