"""Mark a parameter that each worker passes itself, and read these marks from annotations.

Workers import this before anything else, and callers read annotations whose names they may not
have: it imports nothing but ``typing``, and takes a name that is unknown for an unknown type.
"""

from __future__ import annotations

import builtins
import functools
import typing
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Annotated, Any

from jetmap import bounds

from .signatures import annotations_of, described, innermost, keyword_only

_COROUTINE, _ITERABLE_COROUTINE, _ASYNC_GENERATOR = 0x80, 0x100, 0x200
# Annotations that need not be evaluated: they cannot hold a mark.
_PLAIN = frozenset(
    ("int", "float", "str", "bytes", "bool", "None", "Any", "list[int]", "list[str]")
)


class PerWorker:
    """The loader of a parameter; ``per_worker`` makes it.

    Attributes:
        load: The loader.
        timeout: Seconds that it may take; None: the setting ``load_timeout``.
        owner: The process that sent the loader by value; empty if it is imported.
    """

    __slots__ = ("load", "owner", "timeout")

    def __init__(self, load: Callable[[], Any], timeout: float | None, owner: str = "") -> None:
        self.load = load
        self.timeout = timeout
        self.owner = owner

    def __repr__(self) -> str:
        return f"per_worker({self.name})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PerWorker) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def name(self) -> str:
        """The loader's module and name."""
        return described(function_of(self.load))

    @property
    def key(self) -> Hashable:
        """The identity of the loader: equal for each evaluation of one annotation."""
        key = _identity(self.load)
        try:
            hash(key)
        except TypeError:
            return id(self.load)
        return key


def per_worker(load: Callable[[], Any], /, *, timeout: float | None = None) -> Any:
    """Mark a keyword-only parameter that each worker makes once and passes itself.

    Write it as ``model: Annotated[Model, per_worker(load_model)]``. A worker calls the loader
    before it takes items, and passes the one object to each function that names this loader. The
    parameter is not part of a call from elsewhere; in an ordinary call of the function you pass it.

    Args:
        load: A function without required parameters, or a generator function that yields once: what
            follows its ``yield`` runs when the worker ends.
        timeout: Seconds that the loader may take. The default is the setting ``load_timeout``.

    Returns:
        The mark, for ``Annotated``.

    Raises:
        TypeError: ``load`` cannot be called without arguments, or is async.
        ValueError: The timeout is out of bounds.
    """
    if isinstance(load, Unknown):
        raise NameError(f"name {load.name!r} is not defined", name=load.name)
    _check_loader(load)
    return PerWorker(load, bounds.TIMEOUT.check_optional("timeout", timeout))


def marks_of(
    f: Callable[..., Any],
    scope: dict[str, Any],
    hints: Mapping[str, Any],
    names: Mapping[str, Any] | None = None,
) -> dict[str, PerWorker]:
    """Return the parameters of a function that workers pass themselves, each with its mark.

    Args:
        scope: Globals of the function's annotations.
        hints: Types of parameters that are known already.
        names: More names for annotations that are text.

    Raises:
        NameError: A loader's name is not defined, or not yet.
        TypeError: A mark is misplaced, or its loader makes something else.
    """
    found = {}
    allowed = keyword_only(innermost(f))
    for parameter, annotation in (annotations_of(f) | dict(hints)).items():
        if isinstance(annotation, str) and annotation in _PLAIN:
            continue
        hint = evaluated(annotation, scope, names or {})
        place = f"{described(f)} ({parameter})"
        mark = _mark_in(hint, place)
        if mark is None:
            continue
        if parameter not in allowed:
            what = "the return value" if parameter == "return" else "the item"
            raise TypeError(f"{place}: per_worker is for keyword-only parameters, and not {what}")
        from .fits import check_loader

        check_loader(mark, typing.get_args(hint)[0], place)
        found[parameter] = mark
    return found


class Unknown:
    """The value of a name that is known only to type checkers, or only later."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, name: str) -> Unknown:
        if name.startswith("__"):
            raise AttributeError(name)
        return Unknown(f"{self.name}.{name}")

    def __getitem__(self, key: object) -> Unknown:
        return self

    def __call__(self, *args: object, **kwargs: object) -> Unknown:
        return self

    def __or__(self, other: object) -> Unknown:
        return self

    __ror__ = __or__


class _Names(dict[str, Any]):
    """The names of an annotation, with unknown ones."""

    def __init__(self, scope: Mapping[str, Any], names: Mapping[str, Any]) -> None:
        super().__init__(names)
        self._scope = scope

    def __missing__(self, name: str) -> Any:
        if name in self._scope:
            return self._scope[name]
        return getattr(builtins, name, None) or Unknown(name)


def evaluated(annotation: Any, scope: dict[str, Any], names: Mapping[str, Any]) -> Any:
    """Evaluate an annotation as far as its names are known; None if it makes no sense."""
    for _ in range(2):  # Text may hold text.
        if isinstance(annotation, typing.ForwardRef):
            annotation = annotation.__forward_arg__
        if not isinstance(annotation, str):
            return _unaliased(annotation)
        try:
            annotation = eval(annotation, scope, _Names(scope, names))
        except Exception as error:
            if _is_refusal(error):
                raise
            return None  # The type's own codec says more.
    return None


def _unaliased(hint: Any) -> Any:
    """Return what an alias made by a ``type`` statement stands for."""
    try:
        return hint.__value__ if type(hint).__name__ == "TypeAliasType" else hint
    except NameError:  # It names a class that only type checkers know.
        return hint


def _is_refusal(error: BaseException) -> bool:
    """Return whether ``per_worker`` raised an error."""
    step = error.__traceback__
    while step is not None and step.tb_frame.f_code is not per_worker.__code__:
        step = step.tb_next
    return step is not None


def _mark_in(hint: Any, place: str) -> PerWorker | None:
    """Return the mark of a parameter's type. Raises TypeError if it is in the wrong place."""
    metadata = hint.__metadata__ if typing.get_origin(hint) is Annotated else ()
    marks = [mark for mark in metadata if isinstance(mark, PerWorker)]
    if len(marks) == 1:
        return marks[0]
    if marks:
        raise TypeError(f"{place}: one per_worker(…) for a parameter, and not {len(marks)}")
    if any(part is per_worker for part in (hint, *metadata)):
        raise TypeError(f"{place}: per_worker needs the loader: per_worker(load)")
    if any(isinstance(part, PerWorker) for part in _parts(hint)):
        raise TypeError(
            f"{place}: per_worker(…) is for a whole parameter: write Annotated[Type, per_worker(…)]"
        )
    return None


def _parts(hint: Any) -> Iterator[Any]:
    yield hint
    for part in typing.get_args(hint):
        yield from _parts(part)


def _identity(load: Any) -> Hashable:
    if isinstance(load, functools.partial):
        return _identity(load.func), load.args, tuple(sorted(load.keywords.items()))
    code = getattr(load, "__code__", None)
    is_lambda = code is not None and code.co_name == "<lambda>"
    if is_lambda and load.__closure__ is None and not load.__kwdefaults__:
        # Each evaluation of an annotation makes another one.
        return code, load.__module__, load.__defaults__
    identity: Hashable = load
    return identity


def function_of(load: Any) -> Any:
    """Return the function of a partial one."""
    while isinstance(load, functools.partial):
        load = load.func
    return load


def _check_loader(load: Any) -> None:
    name = described(function_of(load))
    if not callable(load):
        raise TypeError(
            f"per_worker takes a loader, which it calls in each worker, and not {name}: write "
            "per_worker(load), without calls"
        )
    code = getattr(innermost(function_of(load)), "__code__", None)
    if code is not None and code.co_flags & (_COROUTINE | _ITERABLE_COROUTINE | _ASYNC_GENERATOR):
        raise TypeError(f"{name}: a loader is not async; write: def, not async def")
    if (missing := _required(load)) is not None:
        raise TypeError(
            f"{name}: a loader is called without arguments, and this one needs {missing!r}: give "
            "it a default, or write per_worker(functools.partial(…))"
        )


def _required(load: Any) -> str | None:
    """Return the name of a parameter without which the loader cannot be called, or None."""
    code = getattr(load, "__code__", None)
    if code is not None and not code.co_argcount and not code.co_kwonlyargcount:
        return None
    import inspect

    try:
        parameters = inspect.signature(load).parameters.values()
    except (TypeError, ValueError):  # A builtin that does not say.
        return None
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for each in parameters:
        if each.default is each.empty and each.kind not in variable:
            return each.name
    return None
