"""Rows of joblib: a scikit-learn grid search over a large array, beside loky."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from importlib.util import find_spec
from statistics import median
from time import perf_counter
from typing import Any

import joblib
import numpy as np

import jetmap.joblib  # noqa: F401 - Its backend is used by name.
from jetmap.executor import blobs

from .measure import Measure, interleaved, median_ratio
from .run import Run
from .table import Row, Target, seconds

FEATURES = 125
SAMPLES = 100_000  # Rows of 125 floats, 100 MB in all.
LARGE = 0.9  # Share of the array that a copy has at least, to be one of the whole.
ALPHAS = 4
FOLDS = 3


async def grid_search(run: Run) -> list[Row]:
    """A grid search in workers that are warm, of jetmap and of loky."""
    if find_spec("sklearn") is None:
        print("needs scikit-learn: pip install scikit-learn", file=sys.stderr)
        return []
    x, y = _data(run.scaled(SAMPLES))
    copies = _Copies(x.nbytes * LARGE)
    contenders: dict[str, Measure] = {
        backend: partial(asyncio.to_thread, _search, backend, x, y, run.cores)
        for backend in ("loky", "jetmap")
    }
    with copies:
        for measure in contenders.values():
            await measure()
        samples = await interleaved(run.runs, contenders)
    fits = f"grid search of {ALPHAS * FOLDS} fits"
    return [
        Row(
            "joblib",
            f"{fits}, array of {x.nbytes / 1e6:.0f} MB",
            baseline=f"{seconds(median(samples['loky']))} (loky)",
            jetmap=seconds(median(samples["jetmap"])),
            figure=median_ratio(samples["jetmap"], samples["loky"]),
            target=Target("at most", 1.05),
            samples=samples,
        ),
        Row(
            "joblib-copies",
            f"copies of the array in {run.runs + 1} searches",
            baseline="",
            jetmap=f"{copies.count}",
            figure=copies.count,
            target=Target("at most", 1),
            samples={"copies": [copies.count]},
        ),
    ]


class _Copies:
    """Count the large buffers that are copied for workers meanwhile; they share the copy."""

    def __init__(self, least: float) -> None:
        self.count = 0
        self._least = least
        self._write = blobs.write

    def __enter__(self) -> None:
        blobs.write = self._counted

    def __exit__(self, *exc_info: object) -> None:
        blobs.write = self._write

    def _counted(self, buffer: memoryview) -> int:
        self.count += buffer.nbytes >= self._least
        return self._write(buffer)


def _data(samples: int) -> tuple[Any, Any]:
    random = np.random.default_rng(20120907)
    x = random.normal(size=(samples, FEATURES))
    return x, x @ random.normal(size=FEATURES) + random.normal(size=samples)


def _search(backend: str, x: Any, y: Any, cores: int) -> float:
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV

    began = perf_counter()
    with joblib.parallel_config(backend, n_jobs=cores):
        search = GridSearchCV(Ridge(), {"alpha": np.logspace(-2, 4, ALPHAS)}, cv=FOLDS)
        search.fit(x, y)
    return perf_counter() - began
