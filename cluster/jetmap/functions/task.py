"""The ``@task`` decorator, and the registry of decorated functions.

Every worker imports this module before anything else, so it must stay cheap: it imports nothing
else of jetmap until a function's types are needed.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .batching import Batching
from .function import Function
from .retries import Classes, RetryPolicy
from .signatures import described

if TYPE_CHECKING:
    from typing import Unpack

    from .batching import BatchDecorator
    from .options import TaskOptions

__all__ = ["Function", "find", "find_named", "guests", "registered", "registered_at", "task"]

F = TypeVar("F", bound=Callable[..., Any])

_names: dict[str, Function] = {}
_callables: dict[int, Function] = {}
_guests = 0


@overload
def task(f: F, /, **options: Unpack[TaskOptions]) -> F: ...
@overload
def task(**options: Unpack[TaskOptions]) -> Callable[[F], F]: ...
@overload
def task(
    *, batch: int, linger: float | None = None, **options: Unpack[TaskOptions]
) -> BatchDecorator: ...
def task(
    f: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    timeout: float | None = None,
    attempts: int | None = None,
    retries: int | None = None,
    retry_on: Classes = (Exception,),
    no_retry_on: Classes = (),
    backoff: float = 1.0,
    max_backoff: float = 60.0,
    max_parallel: int | None = None,
    batch: int | None = None,
    linger: float | None = None,
    **unknown: Any,
) -> Any:
    """Register a function of one item, and return it unchanged.

    Workers find the function by its name. It needs no change to be called directly, tested or
    mocked. Use it as ``@task``, or with options as ``@task(timeout=10)``.

    Args:
        f: A function with one required positional parameter, the item, and any number of
            keyword-only parameters, which calls pass as ``kwargs``. Annotations say how items and
            values are decoded. Parameters marked by ``per_worker`` are passed by each worker.
        name: Name in calls and URLs: letters, digits, ``_``, ``.`` and ``-``, beginning with a
            letter or ``_``. The default is the function's ``__name__``.
        timeout: Seconds that one item may compute before its worker is killed. The default is
            no limit.
        attempts: Attempts at an item that kills its worker, 1 to 1,000. The default is the setting
            ``attempts`` (2).
        retries: Calls for an item after the first one, while the function raises: 0 to 1,000.
            The default is none.
        retry_on: Exceptions after which the function is called again: a class, or several.
        no_retry_on: Exceptions among these after which it is not.
        backoff: Seconds that the first wait takes at most; each further one takes twice as long.
            The wait itself is random, from 0 on. It keeps no core busy.
        max_backoff: Seconds that a wait takes at most.
        max_parallel: Cores that all its maps and jobs together may use at most, over the whole
            pool, such as connections that a database allows. People may change it while it runs.
            The default is any number.
        batch: Items of one call, at most: the function gets a list of items and returns a list of
            their values, as long and in the same order; the rows of a NumPy array count as one.
            Maps still pass and return single items;
            those of several maps may share a call. ``timeout`` then limits a call.
        linger: Seconds that a call with fewer items waits for more. The default is 0.005.

    Returns:
        ``f`` itself, or a decorator if only options are given.

    Raises:
        TypeError: ``f`` has another signature, ``retry_on`` names what is not an exception or
            stands without ``retries``, or a
            ``per_worker`` is misplaced, or its loader makes something other than its parameter is.
            ``linger`` is given without ``batch``, or a batch function takes or returns no list.
        ValueError: An option is out of bounds, or the name has other characters.
        DuplicateFunction: Another function of this process has the name.
    """
    if unknown:
        from .advice import unknown_option

        raise TypeError(unknown_option(task, next(iter(unknown))))
    policy = RetryPolicy(retries or 0, retry_on, no_retry_on, backoff, max_backoff)
    if retries is None and not policy.is_default:
        raise TypeError(
            "retry_on, no_retry_on, backoff and max_backoff need the number of retries: "
            "@task(retries=3, …)"
        )
    retry = policy if policy.retries else None
    batching = Batching.of(batch, linger)
    if f is None:
        return lambda f: _register(f, name, timeout, attempts, retry, batching, max_parallel)
    return _register(f, name, timeout, attempts, retry, batching, max_parallel)


@overload
def find(f: str, /) -> Function | None: ...
@overload
def find(f: Callable[..., Any], /) -> Function: ...
def find(f: Callable[..., Any] | str, /) -> Function | None:
    """Find the registration of a function, or of a name; None for an unknown name.

    Raises TypeError for a callable that is not a ``@task``. If the module was reloaded, the old
    function stands for its successor.
    """
    if isinstance(f, str):
        function = _names.get(f)
        return function if function is not None and function.alive else None
    function = _callables.get(id(f))
    if function is not None and function.is_of(f):
        return function
    return _successor(f)


def find_named(name: str) -> Function:
    """Find the registration of a name. Raises UnknownFunction."""
    function = find(name)
    if function is not None:
        return function
    from jetmap.errors import UnknownFunction

    from .advice import suggestion

    names = [each.name for each in registered()]
    raise UnknownFunction(
        f"no function {name!r} is registered in this process{suggestion(name, names)}; "
        f"functions that are registered: {', '.join(names) or 'none'}"
    )


def registered() -> list[Function]:
    """List every function that this process knows, ordered by name."""
    known = list(_names.values())  # A copy: the garbage collector may remove a local one.
    return sorted((each for each in known if each.alive), key=lambda each: each.name)


def registered_at(module: ModuleType, qualname: str) -> Function | None:
    """Find the function that was decorated there, even if another one has its name."""
    for function in reversed(list(_callables.values())):
        if function.qualname == qualname and function.alive and function.scope is vars(module):
            return function
    return None


@contextmanager
def guests() -> Iterator[None]:
    """Allow modules imported meanwhile to decorate functions whose names are taken.

    A worker uses this to import a caller's module beside those it offers; the names stay with the
    functions that it offers.
    """
    global _guests
    _guests += 1
    try:
        yield
    finally:
        _guests -= 1


def _register(
    f: F,
    name: str | None,
    timeout: float | None,
    attempts: int | None,
    retry: RetryPolicy | None,
    batching: Batching | None,
    max_parallel: int | None,
) -> F:
    function = Function(
        f,
        name=name,
        timeout=timeout,
        attempts=attempts,
        retry=retry,
        batching=batching,
        max_parallel=max_parallel,
    )
    function.find_marks(sys._getframe(2))
    if batching is not None:
        batching.check(function, sys._getframe(2))
    earlier = _names.get(function.name)
    if earlier is not None:
        if _guests and earlier.alive and not _may_replace(earlier, function):
            _callables[id(f)] = function
            return f
        _make_way(earlier, function)
    if function.local:
        function.resolve_now(sys._getframe(2))
        _let_go(function)
    _callables[id(f)] = function
    _names[function.name] = function
    return f


def _make_way(earlier: Function, new: Function) -> None:
    """Leave the name to ``new``, or raise DuplicateFunction."""
    if not _may_replace(earlier, new):
        gc.collect()  # A local function of a finished call may linger in a cycle.
        if earlier.alive:
            from jetmap.errors import DuplicateFunction

            raise DuplicateFunction(
                f"two functions are named {new.name!r}: {earlier.module}.{earlier.qualname} and "
                f"{new.module}.{new.qualname}; name one of them: @task(name=…)"
            )
    if earlier.alive and not earlier.is_of(new.callable):
        _let_go(earlier)


def _may_replace(earlier: Function, new: Function) -> bool:
    if not earlier.alive or earlier.is_of(new.callable):
        return True
    if earlier.module != new.module:
        return False
    executed_again = earlier.spec is not new.spec or earlier.scope is not new.scope
    return executed_again or (earlier.by_value and new.by_value)


def _let_go(function: Function) -> None:
    key, name = id(function.callable), function.name

    def forget() -> None:
        if _callables.get(key) is function:
            del _callables[key]
        if _names.get(name) is function:
            del _names[name]

    function.hold_weakly(forget)


def _successor(f: Any) -> Function:
    """Find the function that replaced ``f`` when its module was reloaded."""
    inner = f
    while (inner := getattr(inner, "__wrapped__", None)) is not None:
        function = _callables.get(id(inner))
        if function is not None and function.is_of(inner):
            raise TypeError(
                f"{described(f)} is not a @task, but wraps one; put @task above its other "
                "decorators"
            )
    module, qualname = getattr(f, "__module__", None), getattr(f, "__qualname__", None)
    if module is not None and "<" not in str(qualname):
        for function in list(_names.values()):
            if (function.module, function.qualname) == (module, qualname) and not function.by_value:
                return function
    from .advice import not_a_task

    raise TypeError(not_a_task(f))
