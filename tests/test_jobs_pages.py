"""The list of jobs, page by page, and the indexes of outcomes that are kept between pages."""

from __future__ import annotations

import itertools

import pytest

from fake_cluster import gateway
from jetmap.jobs.catalogue import Catalogue
from jetmap.jobs.outcome_index import Fold
from jetmap.jobs.outcome_indexes import Folds
from jetmap.jobs.record import Record, State
from jetmap.wire.messages import Report
from jetmap_api.jobdocuments import states_of
from jetmap_api.problems import Problem
from jobs_over_http import site
from over_http import check_problem


def record(n: int, state: State = "running") -> Record:
    # Two in each moment.
    return Record(id=f"job{n}", function="f", format="json", state=state, created=0.1 + n // 2)


def filled(count: int) -> Catalogue:
    catalogue = Catalogue(lambda record: None)
    for n in range(count):
        catalogue.heard(record(n), n + 1)
    return catalogue


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
@pytest.mark.parametrize("gone", ["deleted", "expired", None])
def test_pages_go_on_behind_a_job_that_is_gone(limit: int, gone: str | None) -> None:
    catalogue = filled(10)
    found: list[str] = []
    after: str | None = None
    for number in itertools.count(20):
        page, after = catalogue.listed((), None, limit, after)
        found += [job.id for job in page]
        if after is None:
            break
        last = page[-1]
        if gone == "deleted":
            catalogue.heard(record(int(last.id[3:]), "deleted"), number)
        elif gone == "expired":
            catalogue.gone(last.id)
    assert found == [f"job{n}" for n in reversed(range(10))]


@pytest.mark.parametrize("after", ["", "job3", "_", "nan_job3", "x_y"])
def test_no_place_in_the_list(after: str) -> None:
    with pytest.raises(ValueError):
        filled(3).listed((), None, 2, after)


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


def add(fold: Fold, messages: int) -> None:
    at = fold.messages
    for n in range(at, at + messages):
        # Each other item, so that none is a neighbour.
        fold.add(n + 1, Report("=a=1", 0, 0, 2 * n, 1, b"[1]", [], 0.0))


def test_indexes_are_kept_up_to_so_many_bytes() -> None:
    folds = Folds(1_000_000)
    for job in "abc":
        add(folds.get(job), 5_000)
    folds.get("d")
    assert "b" in folds and "c" in folds and "a" not in folds and folds.size < 1_000_000
    kept = folds.get("b")
    assert kept.messages == 5_000
    add(kept, 20_000)
    assert folds.get("b") is kept, "of the last one the pages do not begin anew"
    assert "c" not in folds
    folds.get("e")
    assert "b" not in folds
    folds.drop("e")
    assert "e" not in folds


def test_what_an_index_takes() -> None:
    fold = Fold()
    add(fold, 1_000)
    arrays = [fold._seqs, fold._from, fold._to, fold._done, fold._failed, fold._bytes]
    arrays += [fold._starts, fold._ends, fold._owners]
    size = sum(len(found) * found.itemsize for found in arrays)
    assert size <= fold.memory <= size + 3_000
