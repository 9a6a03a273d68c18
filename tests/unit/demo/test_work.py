"""The work of the demo, and the sample by which its time is estimated."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from jetmap.demo.work import choose_sample, evenly, prime_search, source_metrics


def test_a_sample_stands_for_the_whole() -> None:
    work = prime_search(2)
    whole = choose_sample(work, parallel_seconds=2.0, cores=2)
    assert (whole.step, whole.factor, whole.items) == (1, 1.0, work.items)
    part = choose_sample(work, parallel_seconds=40.0, cores=2)
    assert part.step == 4
    assert len(part.items) == len(work.items) / 4
    assert part.factor == 4.0
    assert "one in 4" in str(part)


def test_a_sample_of_uneven_items_scales_by_weight() -> None:
    work = prime_search(1)
    weights = [index + 1 for index in range(len(work.items))]
    uneven = type(work)(**{**vars(work), "weights": weights})
    part = choose_sample(uneven, parallel_seconds=80.0, cores=1)
    chosen = sum(weights[work.items.index(item)] for item in part.items)
    assert (part.step, part.factor) == (4, sum(weights) / chosen)
    assert part.items == sorted(part.items)


def test_the_files_of_this_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of its environment, not of another one with the same standard library."""
    stdlib, packages = tmp_path / "lib", tmp_path / "env"
    files = {stdlib / "os.py": 10, stdlib / "json" / "tool.py": 20, packages / "ours.py": 30}
    others = {stdlib / "site-packages" / "theirs.py": 40, packages / "ours.pyi": 50}
    for path, size in (files | others).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#" * size)
    (stdlib / "named.py").mkdir()
    paths = {"stdlib": str(stdlib), "purelib": str(packages), "platlib": str(packages)}
    sysconfig = SimpleNamespace(get_paths=lambda: paths)
    monkeypatch.setattr("jetmap.demo.work.sysconfig", sysconfig)
    work = source_metrics()
    assert dict(zip(work.items, work.weights, strict=True)) == {
        str(path): size for path, size in files.items()
    }
    best = {"lines": 10, "functions": 2, "classes": 1, "complexity": 7, "name": "f"}
    said = work.summarize([best, None], 1)
    assert said[0] == "10 lines, 2 functions"
    assert "f() with 7 paths" in said[1] and "1 file does not parse" in said[2]
    monkeypatch.setattr("jetmap.demo.work.MOST_FILES", 2)
    few = source_metrics()
    assert few.items == [work.items[0], work.items[1]] and few.what.startswith("2 of 3 files")


@pytest.mark.parametrize("count", [0, 1, 5, 9, 10, 11, 99])
def test_chosen_values_lie_evenly_among_all(count: int) -> None:
    chosen = evenly(range(count), 10)
    assert len(chosen) == min(count, 10) and chosen == sorted(set(chosen))
    gaps = {later - earlier for earlier, later in pairwise(chosen)}
    assert max(gaps, default=0) - min(gaps, default=0) <= 1


def test_the_largest_prime_is_named() -> None:
    assert prime_search(1).summarize([3, None, 7], 1) == ["the largest found is 7"]
