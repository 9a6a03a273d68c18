"""Track the modules that workers cannot import, and loaders that fail. No I/O and no clock.

Programs of one directory share a keeper, and scripts join an `up`: a module of one that breaks,
hangs or kills its worker must cost only the maps of its own functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from jetmap.wire.worker_start import Broken, Brought, Loaded, Setup

# Seconds for which a failed import is not tried again, unless a file changes. A network that it
# depends on, for example, may be back by then.
RETRY_SECONDS = 10.0


KEPT_BROUGHT = 16  # Functions of callers that new workers prepare for.


@dataclass(frozen=True)
class _Failure:
    text: str
    at: float


class Imports:
    """The modules of callers, the loaders of functions, and their failures.

    Args:
        setup: The ``Setup`` of all workers. Its lists are changed here, for the next worker.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._modules = setup.modules
        self._all = list(setup.modules)
        self._failures: dict[str, _Failure] = {}
        self._deadly: dict[str, float] = {}  # Time at which a worker died of each loader.

    def on_failed(self, broken: Broken, now: float, *, fatal: bool) -> bool:
        """Note a failure; return whether it is news. fatal: it took the worker with it."""
        if fatal and broken.home in self._modules:
            self._modules.remove(broken.home)
        if fatal and broken.loader:
            self._setup.unloadable[broken.loader] = broken.text
            self._deadly[broken.loader] = now
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

    def is_proven(self, loader: str) -> bool:
        """Return whether a loader has worked in a worker of this agent."""
        return loader in self._setup.proven

    def on_ready(self, loads: Iterable[str]) -> None:
        """Record the loaders that have worked in a worker."""
        proven = self._setup.proven
        for loader in loads:
            if loader not in proven:
                proven.append(loader)
            self._setup.unloadable.pop(loader, None)

    def on_start_failed(self, now: float) -> None:
        """Have the next worker call deadly loaders again, since no function is left without."""
        for loader, at in self._deadly.items():
            if now - at >= RETRY_SECONDS:
                self._setup.unloadable.pop(loader, None)

    def on_loaded(self, loaded: Loaded) -> None:
        """Have new workers prepare for a function that a caller brought."""
        self.on_ready(loaded.loads)
        if loaded.brought is None:
            return
        brought = self._setup.brought
        place = _place(loaded.brought)
        brought[:] = [each for each in brought if _place(each) != place][1 - KEPT_BROUGHT :]
        brought.append(loaded.brought)

    def on_changed(self) -> None:
        """Try every module and loader again: a file has changed."""
        self._failures.clear()
        self._deadly.clear()
        self._setup.unloadable.clear()
        self._setup.proven.clear()
        self._modules[:] = self._all


def _place(brought: Brought) -> tuple[str, str, str]:
    ref = brought.ref
    return ref.path or ref.module, ref.qualname, brought.name
