"""Errors for calls that make no sense: what is wrong, and the next step."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Mapping
from typing import Any

# The default of a parameter that must be given.
MISSING: Any = object()

# Types of items that are right without another look.
_LISTS = (list, tuple, range)

# What other libraries call the number of workers.
_CORES = ("max_workers", "n_jobs", "n_workers", "processes", "workers")

# What Celery calls options of tasks.
_CELERY = {
    "autoretry_for": "retry_on",
    "dont_autoretry_for": "no_retry_on",
    "max_retries": "retries",
    "retry_backoff": "backoff",
    "retry_backoff_max": "max_backoff",
    "soft_time_limit": "timeout",
    "time_limit": "timeout",
}

# Options of other libraries' `map`, and why they are not needed.
_ELSEWHERE = {
    "chunksize": "chunks are cut by what an item costs",
    "chunk_size": "chunks are cut by what an item costs",
    "batch_size": "chunks are cut by what an item costs",
    "n_jobs": "the number of workers belongs to the cluster: Cluster(cores=…)",
    "max_workers": "the number of workers belongs to the cluster: Cluster(cores=…)",
    "processes": "the number of workers belongs to the cluster: Cluster(cores=…)",
    "callback": "outcomes come as they finish from cluster.stream(f, items)",
}


def check_call(
    method: Callable[..., Any],
    owner: object,
    f: object,
    items: object,
    more: tuple[Any, ...],
    unknown: Mapping[str, Any],
) -> None:
    """Raise TypeError for arguments of ``map``, ``stream`` or ``submit`` that make no sense.

    Args:
        method: The function, as its class has it.
        owner: Its first argument; the user's function if it was called on the class.
    """
    if type(items) in _LISTS and not more and not unknown:
        return
    name = method.__name__
    if more:
        raise TypeError(
            f"{name}() takes one list of items; put several together, cluster.{name}(f, "
            "list(zip(a, b))), and write def f(pair)"
        )
    if unknown:
        raise TypeError(_unknown(method, f, unknown))
    if items is MISSING:
        if not hasattr(owner, name):
            raise TypeError(
                f"{name}() was called on the class; start a cluster first: async with Cluster() "
                f"as cluster: await cluster.{name}(f, items), or outside async code: with "
                f"Cluster().sync as cluster: cluster.{name}(f, items)"
            )
        raise TypeError(f"{name}() needs the items too: cluster.{name}(f, items)")
    if callable(items) and not callable(f) and not isinstance(f, str):
        raise TypeError(not_a_task(f))
    check_items(name, items)


def suggestion(function: str, names: list[str]) -> str:
    """Suggest the name of a function that was probably meant, in brackets; "" if none is near."""
    close = difflib.get_close_matches(function, names, 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def unknown_option(method: Callable[..., Any], name: str) -> str:
    """Explain that ``task`` has no such option: the one that is meant, or all of them."""
    parameters = inspect.signature(method).parameters.values()
    known = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    close = difflib.get_close_matches(name, known, 1)
    if meant := _CELERY.get(name) or (close[0] if close else ""):
        return f"task() has no option {name!r}; is it {meant!r}?"
    return f"task() has no option {name!r}. Its options: {', '.join(known)}"


def check_options(
    owner: str, known: Collection[str], given: Collection[str], settings: Collection[str]
) -> None:
    """Raise TypeError for a parameter that a class does not have.

    Args:
        owner: Name of the class.
        known: Its parameters.
        given: What it was called with.
        settings: Names of settings, which belong elsewhere.
    """
    for name in given:
        if name in known:
            continue
        close = difflib.get_close_matches(name, known, 1)
        if name in _CORES:
            advice = ": the number of workers is cores="
        elif name in settings:
            advice = (
                f": it is a setting; write it into jetmap.toml, set JETMAP_{name.upper()}, or pass "
                f"settings=jetmap.settings.Settings.load({name}=…)"
            )
        elif close:
            advice = f"; is it {close[0]!r}?"
        else:
            advice = f". Its options: {', '.join(known)}"
        raise TypeError(f"{owner}() has no option {name!r}{advice}")


def check_items(method: str, items: object) -> None:
    """Raise TypeError for items that are neither a list nor another iterable."""
    if isinstance(items, type) or inspect.isroutine(items):
        raise TypeError(f"items is {_described(items)}; call it, and pass what it gives")
    if isinstance(items, (Iterable, AsyncIterable)) or hasattr(items, "__getitem__"):
        return
    if inspect.isawaitable(items):
        raise TypeError("items is a coroutine; await it, and pass what it gives")
    what = "None" if items is None else f"of type {type(items).__name__}"
    raise TypeError(
        f"items is {what}; pass a list or another iterable: cluster.{method}(f, [item])"
    )


def check_not_async(items: object) -> None:
    """Raise TypeError for an async iterable, which synchronous code cannot read."""
    if isinstance(items, AsyncIterable) and not isinstance(items, Iterable):
        raise TypeError(
            "items is an async iterable, which cluster.sync cannot read; use async with Cluster() "
            "as cluster, and await cluster.map(f, items)"
        )


def check_kwarg_names(kwargs: object) -> None:
    """Raise TypeError for keyword parameters that are not a dict with names as keys."""
    if kwargs is None or (isinstance(kwargs, Mapping) and all(isinstance(k, str) for k in kwargs)):
        return
    what = "has keys that are not names" if isinstance(kwargs, Mapping) else "is not a dict"
    raise TypeError(
        f"kwargs {what}: {_short(kwargs)}; name the keyword-only parameters: kwargs={{'name': 1}}"
    )


def _unknown(method: Callable[..., Any], f: object, unknown: Mapping[str, Any]) -> str:
    name = next(iter(unknown))
    if name in _ELSEWHERE and not _has_parameter(f, name):
        return f"{method.__name__}() has no option {name!r}: {_ELSEWHERE[name]}"
    parameters = inspect.signature(method).parameters.values()
    known = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    close = difflib.get_close_matches(name, known, 1)
    if close and not _has_parameter(f, name):
        return f"{method.__name__}() has no option {name!r}; is it {close[0]!r}?"
    return (
        f"{method.__name__}() has no option {name!r}; parameters of the function go into kwargs: "
        f"cluster.{method.__name__}(f, items, kwargs={{{_members(unknown)}}}). "
        f"Its own options: {', '.join(known)}"
    )


def _has_parameter(f: object, name: str) -> bool:
    try:
        return name in inspect.signature(f).parameters  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def not_a_task(f: Any) -> str:
    """Explain why an argument is not a @task, and what to write instead."""
    if isinstance(f, functools.partial):
        return _partial(f)
    if getattr(f, "__name__", "") == "<lambda>":
        return (
            "a lambda is not a @task, because workers find functions by their name; write one: "
            "@task above def f(item): return …"
        )
    if isinstance(f, type):
        return _wrapped(f, "a class", f.__name__)
    if inspect.ismethod(f):
        owner = f.__self__
        of = owner.__name__ if isinstance(owner, type) else f"{type(owner).__name__}(…)"
        return _wrapped(f, "a method, which takes its object along,", f"{of}.{f.__name__}")
    if inspect.iscoroutinefunction(f):
        return (
            f"{_described(f)} is async, and a @task computes: write def, not async def, and @task"
        )
    if inspect.isbuiltin(f) or inspect.ismethoddescriptor(f):
        return _wrapped(f, "a builtin", f.__qualname__)
    if inspect.isroutine(f):
        return f"{_described(f)} is not a @task; decorate it: @task above its def"
    if callable(f):
        return _wrapped(f, f"an object of class {type(f).__name__}", f"{type(f).__name__}(…)")
    if isinstance(f, (Iterable, AsyncIterable)):
        return (
            "the function comes first, then the items: cluster.map(f, items); "
            f"got {_short(f)} first"
        )
    return (
        f"{_short(f)} is not a function; pass the @task itself, not what it returns: "
        "cluster.map(f, items)"
    )


def _partial(f: functools.partial[Any]) -> str:
    inner = getattr(f.func, "__name__", "f")
    given = f", kwargs={{{_members(f.keywords)}}}" if f.keywords else ""
    return (
        f"a partial of {inner} is not a @task; pass the function itself, with @task above its def, "
        f"and its keyword-only parameters as kwargs: cluster.map({inner}, items{given})"
    )


def _members(given: Mapping[str, Any]) -> str:
    """Format the inside of a dict; long values are cut."""
    return ", ".join(f"{name!r}: {_short(value)}" for name, value in given.items())


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _wrapped(f: object, kind: str, call: str) -> str:
    return (
        f"{_described(f)} is {kind} and is not a @task; write a function that calls it: "
        f"@task above def f(item): return {call}(item)"
    )


def _described(f: Any) -> str:
    name = getattr(f, "__qualname__", None) or f"{type(f).__name__}(…)"
    module = getattr(f, "__module__", None)
    return name if module in (None, "builtins") else f"{module}.{name}"


# Using the right thing in the wrong kind of code


START = (
    "start the cluster with 'async with Cluster() as cluster' in async code, and with "
    "'with Cluster().sync as cluster' elsewhere"
)


def refusing(message: str) -> Any:
    """Make a method that Python calls for the wrong statement; its error names the right one."""

    def refuse(*_: object) -> Any:
        raise TypeError(message)

    return refuse
