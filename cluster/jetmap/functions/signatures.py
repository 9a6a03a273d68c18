"""Read a function's definition: its parameters, annotations, module and file.

They are read from the code object, because ``inspect`` would take most of a worker's start.
"""

from __future__ import annotations

import os
import sys
import types
import typing
from typing import Any

from jetmap.machine import MAIN

_VAR_POSITIONAL, _VAR_KEYWORD = 0x04, 0x08
_GENERATOR, _COROUTINE, _ITERABLE_COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x100, 0x200

REQUIRED = object()


def described(f: object) -> str:
    module, qualname = getattr(f, "__module__", None), getattr(f, "__qualname__", None)
    return f"{module}.{qualname}" if qualname else repr(f)


def innermost(f: Any) -> Any:
    """Return the function that decorators wrap, whose signature counts."""
    seen = {id(f)}
    while (inner := getattr(f, "__wrapped__", None)) is not None and id(inner) not in seen:
        seen.add(id(inner))
        f = inner
    return f


def scope_of(inner: Any) -> dict[str, Any]:
    scope = getattr(inner, "__globals__", None)
    if isinstance(scope, dict):
        return scope
    module = sys.modules.get(getattr(inner, "__module__", None) or "")
    return vars(module) if module is not None else {}


def module_of(f: Any, scope: dict[str, Any]) -> str:
    module: str = getattr(f, "__module__", None) or scope.get("__name__") or "builtins"
    if module in MAIN:
        spec = scope.get("__spec__")
        return spec.name if spec is not None and spec.name not in MAIN else "__main__"
    return module


def has_no_file(f: Any, scope: dict[str, Any]) -> bool:
    code = getattr(innermost(f), "__code__", None)
    if code is None:
        return False
    file = scope.get("__file__")
    if scope.get("__name__") not in MAIN:
        return file is None and scope.get("__spec__") is None
    # A notebook's cell or a REPL's line shares __main__ with the script that was run. (A piped
    # program has the file "<stdin>"; one in a zip archive has a file that cannot be opened.)
    return file is None or not os.path.isfile(file) or not _same_file(code.co_filename, file)  # noqa: PTH113


def _same_file(a: str, b: str) -> bool:
    try:
        return a == b or os.path.samefile(a, b)  # noqa: PTH121
    except OSError:
        return False


def item_parameter(f: Any) -> str:
    """Return the name of the only positional parameter. Raises TypeError unless there is one."""
    name = described(f)
    if isinstance(f, str):
        raise TypeError(
            f"@task takes a function, not a name; the name is an option: @task(name={f!r})"
        )
    named = isinstance(getattr(f, "__name__", None), str)
    if not callable(f) or not named or isinstance(f, type) or _is_bound(f):
        raise TypeError(f"@task takes a function, not {name}; write one: def f(item): …")
    _check_kind(f, name)
    inner = innermost(f)
    code = getattr(inner, "__code__", None)
    if code is None:
        return _builtin_parameter(inner, name)
    positional = code.co_varnames[: code.co_argcount]
    if code.co_flags & (_VAR_POSITIONAL | _VAR_KEYWORD):
        raise TypeError(
            f"{name}: a @task has no *args or **kwargs; write the item and each option as a "
            "parameter: def f(item, *, option=…)"
        )
    if not positional:
        raise TypeError(f"{name}: a @task takes one item; write: def f(item)")
    if len(positional) > 1:
        rest = ", ".join(positional[1:])
        raise TypeError(
            f"{name}: a @task takes one positional parameter, the item; make the others "
            f"keyword-only: def f({positional[0]}, *, {rest})"
        )
    if inner.__defaults__:
        raise TypeError(f"{name}: the item has no default; write: def f({positional[0]})")
    return str(positional[0])


def _is_bound(f: Any) -> bool:
    owner = getattr(f, "__self__", None)
    return owner is not None and not isinstance(owner, types.ModuleType)


def _check_kind(f: Any, name: str) -> None:
    while (code := getattr(f, "__code__", None)) is None and hasattr(f, "__wrapped__"):
        f = f.__wrapped__
    flags = code.co_flags if code is not None else 0
    if flags & (_COROUTINE | _ITERABLE_COROUTINE):
        raise TypeError(f"{name}: a @task computes and is not async; write: def, not async def")
    if flags & (_GENERATOR | _ASYNC_GENERATOR):
        raise TypeError(
            f"{name} is a generator, and a @task returns one value for one item: return a list of "
            "what it yields"
        )


def _builtin_parameter(f: Any, name: str) -> str:
    import inspect

    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    if len(parameters) == 1 and parameters[0].kind in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        return parameters[0].name
    raise TypeError(f"{name}: not a function of one item; write one: def f(item): …")


def annotations_of(f: Any) -> dict[str, Any]:
    """Return the annotations as written: strings, or what they evaluated to."""
    inner = innermost(f)
    try:
        return getattr(inner, "__annotations__", None) or {}
    except NameError:  # Python 3.14 evaluates them now, and meets a forward reference.
        if sys.version_info >= (3, 14):
            import annotationlib

            return annotationlib.get_annotations(inner, format=annotationlib.Format.FORWARDREF)
        raise


def keyword_only(inner: Any) -> dict[str, Any]:
    code = getattr(inner, "__code__", None)
    if code is None:
        return {}
    names = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    defaults = inner.__kwdefaults__ or {}
    return {name: defaults.get(name, REQUIRED) for name in names}


def evaluate(annotation: Any, scope: dict[str, Any], names: dict[str, Any]) -> Any:
    def probe() -> None: ...

    probe.__annotations__ = {"hint": annotation}
    return typing.get_type_hints(probe, scope, names, include_extras=True)["hint"]


def renewed(hint: Any, scope: dict[str, Any]) -> Any:
    """Replace the classes in a type by those that have their names in this scope now."""
    if isinstance(hint, type) and not isinstance(hint, types.GenericAlias):
        current = scope.get(hint.__qualname__)
        is_successor = (
            isinstance(current, type)
            and hint.__module__ == current.__module__ == scope.get("__name__")
            and hint.__qualname__ == current.__qualname__
        )
        return current if is_successor else hint
    arguments = typing.get_args(hint)
    inner = tuple(renewed(argument, scope) for argument in arguments)
    if all(new is old for new, old in zip(inner, arguments, strict=True)):
        return hint
    if isinstance(hint, types.UnionType):
        return typing.Union[inner]  # noqa: UP007
    if hasattr(hint, "copy_with"):
        return hint.copy_with(inner)
    origin: Any = typing.get_origin(hint)
    return origin[inner]
