"""Import nats-py without its JetStream classes, which jetmap does not use.

They are half of what importing nats-py's client costs, and each process that connects imports it.
The client only needs the names of three headers from that package. So it gets a package that has
these, and whose code runs as soon as anything else of it is used: an application may use nats-py
beside jetmap. See decision 0512.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Sequence
from enum import Enum
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

PACKAGE, API = "nats.js", "nats.js.api"

_running = threading.RLock()


class NatsHeader(str, Enum):  # noqa: UP042 - as nats-py has it.
    """The headers that nats-py's client reads, by their names in ``nats.js.api``."""

    STATUS = "Status"
    DESCRIPTION = "Description"
    CONSUMER_STALLED = "Nats-Consumer-Stalled"


class DeferredModule(ModuleType):
    """A module whose code runs when it is asked for a name that it does not have yet."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__all__":  # ``import *`` asks for that one first.
            raise AttributeError(name)  # Some tools ask every module for such names.
        with _running:
            spec = self.__spec__
            if spec is not None and isinstance(loader := spec.loader, DeferredLoader):
                spec.loader = loader.inner
                loader.inner.exec_module(self)
                self.__class__ = ModuleType  # type: ignore[assignment]
        return ModuleType.__getattribute__(self, name)


class DeferredLoader(Loader):
    """Load a module without running its code."""

    def __init__(self, inner: Loader) -> None:
        self.inner = inner

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return DeferredModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ == PACKAGE:
            importlib.import_module(API)
        else:
            module.Header = NatsHeader  # type: ignore[attr-defined]


class DeferredFinder(MetaPathFinder):
    """Find the two modules that are deferred."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in (PACKAGE, API):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = DeferredLoader(spec.loader)
        return spec


def defer() -> None:
    """Defer nats-py's JetStream classes, unless this process has imported them already."""
    if PACKAGE not in sys.modules:
        sys.meta_path.insert(0, DeferredFinder())
