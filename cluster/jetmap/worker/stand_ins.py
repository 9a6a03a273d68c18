"""Stand-ins for classes that are dear to import and that workers do not use.

A script with ``from jetmap import Cluster, task`` is imported by each of its workers, which need
nothing but ``task``: a cluster cannot be started in a worker. See decision 0513.
"""

from __future__ import annotations

import types
from importlib import import_module
from typing import Any

HOME = "jetmap.client.cluster"


def _real() -> Any:
    return import_module(HOME).Cluster


class StandIn(type):
    """A class whose calls, attributes, checks and subclasses are those of ``Cluster``."""

    def __new__(
        cls, name: str, bases: tuple[type, ...], names: dict[str, Any], **options: Any
    ) -> Any:
        if not bases:
            return super().__new__(cls, name, bases, names)
        real = tuple(_real() if isinstance(base, cls) else base for base in bases)
        return types.new_class(name, real, options, lambda body: body.update(names))

    def __call__(cls, *arguments: Any, **options: Any) -> Any:
        return _real()(*arguments, **options)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # Whoever shows annotations asks classes for such names.
        return getattr(_real(), name)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _real())

    def __subclasscheck__(cls, subclass: type) -> bool:
        return subclass is cls or issubclass(subclass, _real())


Cluster: Any = StandIn(
    "Cluster",
    (),
    {"__doc__": "``jetmap.Cluster``, imported when it is first used.", "__module__": HOME},
)
