"""Name a function in the caller, and find it in a worker.

A function travels as a ``FunctionRef``: a module and a name, the path of a ``__main__`` script, or,
if it was defined without a file, its pickle.
"""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jetmap.machine import MAIN

from .function import Function
from .importing import import_main
from .source_files import digest, file_digest, loaded_digest
from .task import guests, registered_at

if TYPE_CHECKING:
    from jetmap.wire.messages import FunctionRef

# Functions kept that came by value or in a script.
_KEPT_VALUES = 64

_resolved: dict[tuple[str, str, str], Function] = {}
_carried: dict[tuple[str, str, str], Function] = {}  # Came by value, or in a script.


class StaleFunction(Exception):  # noqa: N818
    """A function whose file has changed since this process imported it."""


def reference(function: Function, *, far: bool = False, limit: int | None = None) -> FunctionRef:
    """Make the reference by which a worker finds this function.

    It contains the function itself, pickled by cloudpickle, if that was defined without a file or
    in a script that its workers do not have.

    Args:
        far: Whether the workers are on other hosts, without the script.
        limit: Most bytes of the pickle.

    Raises:
        NotImportable: It is a lambda or inside another function, or cannot be pickled.
    """
    from jetmap.wire.messages import FunctionRef

    if "<" in function.qualname and not function.by_value:
        from jetmap.errors import NotImportable

        kind = "a lambda" if function.qualname.endswith("<lambda>") else "defined inside a function"
        raise NotImportable(
            f"{function.module}.{function.qualname} is {kind}: a worker cannot import it; "
            "move it to module level, with def"
        )
    in_main = function.module == "__main__"
    if function.by_value or (far and in_main):
        from jetmap.wire.versions import pickles

        value = _pickled(function, limit)
        return FunctionRef(
            function.module,
            function.qualname,
            value=value,
            digest=digest(value),
            pickles=pickles(),
        )
    main = function.file if in_main else None
    return FunctionRef(function.module, function.qualname, main, digest=file_digest(function.file))


def resolved(ref: FunctionRef) -> Function | None:
    """Return the function that ``resolve`` found for a reference before."""
    return (_resolved if ref.value is None and ref.path is None else _carried).get(_key(ref))


def resolve(ref: FunctionRef) -> Function:
    """Find the function of a reference; import it if necessary.

    Raises StaleFunction if its file has changed since this process imported it, NotImportable if
    it does not exist, and whatever its module raises at import.
    """
    function = resolved(ref)
    if function is None:
        if ref.value is None:
            function = _imported(ref)
        else:
            check_pickles(ref, ref.qualname)
            function = _unpickled(ref.value, ref.qualname)
        found = _resolved if ref.value is None and ref.path is None else _carried
        found[_key(ref)] = function
        for old in list(_carried)[:-_KEPT_VALUES]:
            del _carried[old]
    return function


def running_main() -> str | None:
    """Return the path of the ``__main__`` script.

    None for a REPL, a notebook or ``python -c`` (functions travel by value) and for
    ``python -m`` (they are found in their module, under its own name).
    """
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    spec = getattr(main, "__spec__", None)
    if file is None or (spec is not None and spec.name not in MAIN) or not Path(file).is_file():
        return None
    return str(Path(file).resolve())


def check_pickles(ref: FunctionRef | None, what: str) -> None:
    """Raise NotImportable for a pickle of another Python, which would crash this process."""
    from jetmap.wire.versions import pickles

    if ref is not None and ref.pickles and ref.pickles != pickles():
        from jetmap.errors import NotImportable

        raise NotImportable(
            f"{what} was pickled by {ref.pickles}; this worker has {pickles()}: use the "
            "same versions on both sides, or move the function to a module that workers import"
        )


def _key(ref: FunctionRef) -> tuple[str, str, str]:
    return ref.path or ref.module, ref.qualname, ref.digest


def _imported(ref: FunctionRef) -> Function:
    with guests():
        module = _home(ref)
    function = registered_at(module, ref.qualname) or Function(_attribute(module, ref))
    loaded = loaded_digest(function)
    # A new worker helps only if the file has changed since this one imported it: the reference
    # itself may be older than both.
    if ref.digest and loaded != ref.digest and loaded != file_digest(function.file):
        raise StaleFunction(f"{ref.module}.{ref.qualname} changed since it was imported")
    return function


def _home(ref: FunctionRef) -> types.ModuleType:
    from jetmap.errors import NotImportable

    try:
        if ref.path is not None:
            return import_main(ref.path, again=ref.file is not None)
        if ref.file is not None:
            return _import_from(ref.module, ref.file)
        return importlib.import_module(ref.module)
    except ImportError as exc:
        if exc.name is not None and not f"{ref.module}.".startswith(f"{exc.name}."):
            raise
        raise NotImportable(f"a worker cannot import {ref.module}: {exc}") from exc


def _import_from(name: str, file: str) -> types.ModuleType:
    """Import a module from this file. Raises NotImportable if its name leads to another file."""
    root = Path(file).parent
    if Path(file).name == "__init__.py":
        root = root.parent
    for _ in name.split(".")[1:]:
        root = root.parent
    if str(root) not in sys.path:
        sys.path.append(str(root))
        importlib.invalidate_caches()
    module = importlib.import_module(name)
    found = getattr(module, "__file__", None)
    if found is None or not Path(found).exists() or not Path(found).samefile(file):
        from jetmap.errors import NotImportable

        raise NotImportable(
            f"a worker imports {name} from {found or 'the interpreter'}, its caller from {file}: "
            "rename one of them"
        )
    return module


def _attribute(module: types.ModuleType, ref: FunctionRef) -> Any:
    found: Any = module
    try:
        for part in ref.qualname.split("."):
            found = getattr(found, part)
    except AttributeError as exc:
        from jetmap.errors import NotImportable

        raise NotImportable(
            f"{ref.module} has no {ref.qualname} in a worker, which imports it: define it at the "
            'top of the module, not under if __name__ == "__main__": or in what runs later'
        ) from exc
    return found


def _pickled(function: Function, limit: int | None = None) -> bytes:
    from .by_value import pickled  # It imports cloudpickle, which few need.

    return pickled(function, limit)


def _unpickled(value: bytes, qualname: str) -> Function:
    from .by_value import unpickled

    return unpickled(value, qualname)
