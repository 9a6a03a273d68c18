"""The Celery application of the comparison; its worker imports this module."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from bench import tasks

URL = os.environ.get("BENCH_REDIS", "redis://127.0.0.1:6379/0")
app = Celery("bench", broker=URL, backend=URL)
app.conf.update(
    task_serializer="pickle",
    result_serializer="pickle",
    accept_content=["pickle"],
    worker_prefetch_multiplier=1,
)


def connect(url: str) -> Celery:
    """Point the application at a server that has just been started."""
    app.conf.update(broker_url=url, result_backend=url)
    return app


@app.task  # type: ignore[misc]
def each(name: str, items: list[Any]) -> list[Any]:
    """Run a function of ``bench.tasks`` over a chunk."""
    f = getattr(tasks, name)
    return [f(item) for item in items]
