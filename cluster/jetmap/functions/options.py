"""The options of ``@task`` for type checkers; the implementation names them with defaults."""

from __future__ import annotations

from typing import TypedDict

from .retries import Classes


class TaskOptions(TypedDict, total=False):
    """Options of functions of one item, and of those that take a list."""

    name: str | None
    timeout: float | None
    attempts: int | None
    retries: int | None
    retry_on: Classes
    no_retry_on: Classes
    backoff: float
    max_backoff: float
    max_parallel: int | None
