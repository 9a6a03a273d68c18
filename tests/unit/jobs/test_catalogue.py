"""The list of jobs, page by page, and the indexes of outcomes that are kept between pages."""

from __future__ import annotations

import itertools

import pytest

from fake_cluster import gateway
from jetmap.jobs.catalogue import Catalogue
from jetmap.jobs.outcome_index import OutcomeIndex, OutcomeIndexes
from jetmap.jobs.record import JobState, Record
from jetmap.wire.messages import Report
from jetmap_api.job_documents import states_of
from jetmap_api.problems import Problem
from jobs_over_http import site
from over_http import check_problem


def record(n: int, state: JobState = "running") -> Record:
    # Two in each moment.
    return Record(id=f"job{n}", function="f", format="json", state=state, created=0.1 + n // 2)


def filled(count: int) -> Catalogue:
    catalogue = Catalogue(lambda record: None)
    for n in range(count):
        catalogue.on_record(record(n), n + 1)
    return catalogue


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
@pytest.mark.parametrize("gone", ["deleted", "expired", None])
def test_pages_go_on_behind_a_job_that_is_gone(limit: int, gone: str | None) -> None:
    catalogue = filled(10)
    found: list[str] = []
    after: str | None = None
    for number in itertools.count(20):
        page, after = catalogue.page((), None, limit, after)
        found += [job.id for job in page]
        if after is None:
            break
        last = page[-1]
        if gone == "deleted":
            catalogue.on_record(record(int(last.id[3:]), "deleted"), number)
        elif gone == "expired":
            catalogue.on_removed(last.id)
    assert found == [f"job{n}" for n in reversed(range(10))]


@pytest.mark.parametrize("after", ["", "job3", "_", "nan_job3", "x_y"])
def test_no_place_in_the_list(after: str) -> None:
    with pytest.raises(ValueError):
        filled(3).page((), None, 2, after)


def test_expired_jobs_are_not_listed() -> None:
    assert states_of("running,queued") == ["running", "queued"]
    with pytest.raises(Problem, match="state is one or more, by commas, of queued"):
        states_of("expired")


@pytest.mark.anyio
@pytest.mark.parametrize("query", ["state=expired", "after=nowhere"])
async def test_what_a_list_refuses(query: str) -> None:
    cluster, _ = site()
    async with gateway(cluster) as client:
        check_problem(await client.get(f"/jobs?{query}"), 400, "bad-parameter")


def add(index: OutcomeIndex, messages: int) -> None:
    at = index.messages
    for n in range(at, at + messages):
        # Each other item, so that none is a neighbour.
        index.add(n + 1, Report("=a=1", 0, 0, 2 * n, 1, b"[1]", [], 0.0))


def test_indexes_are_kept_up_to_so_many_bytes() -> None:
    indexes = OutcomeIndexes(1_000_000)
    for job in "abc":
        add(indexes.get(job), 5_000)
    indexes.get("d")
    assert "b" in indexes and "c" in indexes and "a" not in indexes and indexes.size < 1_000_000
    kept = indexes.get("b")
    assert kept.messages == 5_000
    add(kept, 20_000)
    assert indexes.get("b") is kept, "of the last one the pages do not begin anew"
    assert "c" not in indexes
    indexes.get("e")
    assert "b" not in indexes
    indexes.drop("e")
    assert "e" not in indexes


def test_what_an_index_takes() -> None:
    index = OutcomeIndex()
    add(index, 1_000)
    arrays = [index._seqs, index._from, index._to, index._done, index._failed, index._bytes]
    arrays += [index._starts, index._ends, index._owners]
    size = sum(len(found) * found.itemsize for found in arrays)
    assert size <= index.memory <= size + 3_000
