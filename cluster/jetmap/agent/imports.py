"""Track the modules of callers that workers cannot import. No I/O and no clock.

Programs of one directory share a keeper, and scripts join an `up`: a module of one that breaks,
hangs or kills its worker must cost only the maps of its own functions.
"""

from __future__ import annotations

from dataclasses import dataclass

from jetmap.wire.worker_start import Broken

# Seconds for which a failed import is not tried again, unless a file changes. A network that it
# depends on, for example, may be back by then.
RETRY_SECONDS = 10.0


@dataclass(frozen=True)
class _Failure:
    text: str
    at: float


class Imports:
    """The modules of callers, and their failed imports.

    Args:
        modules: Modules that workers import as they start. The list is shared with their ``Setup``:
            the next worker does not import what is dropped here.
    """

    def __init__(self, modules: list[str]) -> None:
        self._modules = modules
        self._all = list(modules)
        self._failures: dict[str, _Failure] = {}

    def on_failed(self, broken: Broken, now: float, *, fatal: bool) -> bool:
        """Note a failure; return whether it is news. fatal: it took the worker with it."""
        if fatal and broken.home in self._modules:
            self._modules.remove(broken.home)
        earlier = self._failures.get(broken.home)
        self._failures[broken.home] = _Failure(broken.text, now)
        return earlier is None or earlier.text != broken.text

    def broken(self, now: float) -> dict[str, str]:
        """Return the homes that are not tried now, and the reason for each."""
        return {
            home: failure.text
            for home, failure in self._failures.items()
            if now - failure.at < RETRY_SECONDS
        }

    def on_changed(self) -> None:
        """Try every module again: a file has changed."""
        self._failures.clear()
        self._modules[:] = self._all
