"""A function that runs whatever program its item holds, as a user's function might."""

from __future__ import annotations

from typing import Any

from jetmap import task


@task
def program(code: str) -> Any:
    """Run the code as a function's body would be; its value is ``result``."""
    return _run(code)


@task(timeout=20)
def timed(code: str) -> Any:
    """The same with a timeout."""
    return _run(code)


def _run(code: str) -> Any:
    names: dict[str, Any] = {}
    exec(code, names)
    return names.get("result")
