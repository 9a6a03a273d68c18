"""The batches of a function: how many items one call takes, and the types of an element."""

from __future__ import annotations

import collections.abc
import typing
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    TypeVar,
    overload,
)

from jetmap import bounds

from .per_worker import Unknown, evaluated
from .signatures import annotations_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from .function import Function

X = TypeVar("X")
Y = TypeVar("Y")
P = ParamSpec("P")

LINGER = 0.005  # Seconds that a batch waits for more items, unless its function says otherwise.

# What a list may be called where a function takes one; it returns a list, and nothing less.
_TAKEN = (
    list,
    collections.abc.MutableSequence,
    collections.abc.Sequence,
    collections.abc.Reversible,
    collections.abc.Collection,
    collections.abc.Iterable,
)


class BatchFunction(Generic[X, P, Y]):
    """A ``@task(batch=…)`` as type checkers see it; at run time it is the function itself.

    Its items are those of the list that it takes.
    """

    __name__: str
    __qualname__: str

    def __call__(self, items: list[X], /, *args: P.args, **kwargs: P.kwargs) -> list[Y]:
        raise NotImplementedError


class Rows(Protocol):
    """A NumPy array as type checkers see it, which need no NumPy for that."""

    @property
    def __array_interface__(self) -> Any: ...
    def tolist(self) -> Any: ...


class BatchDecorator(Protocol):
    """``task(batch=…)`` as type checkers see it: its function returns a list, or an array."""

    @overload
    def __call__(self, f: Callable[Concatenate[list[X], P], list[Y]]) -> BatchFunction[X, P, Y]: ...
    @overload
    def __call__(self, f: Callable[Concatenate[list[X], P], Rows]) -> BatchFunction[X, P, Any]: ...


class Batching:
    """The batches of one function.

    Args:
        size: Items of one call, at most.
        linger: Seconds that a call with fewer items waits for more.

    Raises:
        TypeError: An argument is not a number.
        ValueError: A number is out of bounds.
    """

    # Not a dataclass: task files import this module, which must be quick.
    __slots__ = ("linger", "size")

    def __init__(self, size: int, linger: float = LINGER) -> None:
        self.size = bounds.BATCH.check("batch", size)
        self.linger = bounds.LINGER.check("linger", linger)

    @classmethod
    def of(cls, batch: int | None, linger: float | None) -> Batching | None:
        """Read the options of ``@task``. Raises TypeError for ``linger`` without ``batch``."""
        if batch is not None:
            return cls(batch, LINGER if linger is None else linger)
        if linger is not None:
            raise TypeError(
                f"linger={bounds.shown(linger)} is for batches: give batch=…, the items of one "
                "call, too"
            )
        return None

    def element(self, hint: Any, parameter: str) -> Any:
        """Return the type of one item, or of one value, from that of the list.

        The rows of a NumPy array may be anything. Raises TypeError for what is not a list.
        """
        outer = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
        if outer is Any:
            return Any
        origin, arguments = typing.get_origin(outer) or outer, typing.get_args(outer)
        if origin is list or (parameter != "return" and origin in _TAKEN):
            return arguments[0] if arguments else Any
        if parameter == "return" and _is_array(origin):
            return Any
        if parameter == "return":
            raise TypeError(
                "a batch function returns a list (or a NumPy array), with one value for each item: "
                "write -> list[…]"
            )
        raise TypeError(
            "a batch function takes a list of items: write "
            f"{parameter}: list[{_name(outer)}], or leave batch=… out"
        )

    def check(self, function: Function, frame: FrameType) -> None:
        """Refuse annotations that are not lists, as far as their names are known by now.

        Args:
            frame: Where the function is decorated, which may have local names.
        """
        for parameter, annotation in annotations_of(function.callable).items():
            if parameter not in (function.parameter, "return"):
                continue
            names = frame.f_locals if function.local and isinstance(annotation, str) else {}
            hint = evaluated(annotation, function.scope, names)
            if hint is None and annotation is not None and annotation != "None":
                continue  # The type's own codec says more, at the function's first use.
            if isinstance(hint, Unknown) or isinstance(typing.get_origin(hint), Unknown):
                continue
            try:
                self.element(hint, parameter)
            except TypeError as error:
                raise function.bad_type(parameter, annotation, error) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return Batching, (self.size, self.linger)


def _is_array(cls: Any) -> bool:
    """Return whether a class is NumPy's array, which is not imported here."""
    return getattr(cls, "__module__", "") == "numpy" and cls.__name__ == "ndarray"


def _name(hint: Any) -> str:
    return hint if isinstance(hint, str) else typing._type_repr(hint)
