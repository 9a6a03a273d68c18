"""Find the modules of the tests that a file imports."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

TESTS = str(Path(__file__).parents[1])


def reachable(*modules: ModuleType) -> set[str]:
    """Return the names of these modules, and of those in ``tests`` that they import in turn."""
    names: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module.__name__ in names:
            continue
        names.add(module.__name__)
        for value in list(vars(module).values()):
            home = value if isinstance(value, ModuleType) else _home(value)
            if home is not None and (getattr(home, "__file__", None) or "").startswith(TESTS):
                waiting.append(home)
    return names


def _home(value: object) -> ModuleType | None:
    name = getattr(value, "__module__", None)
    return sys.modules.get(name) if isinstance(name, str) else None
