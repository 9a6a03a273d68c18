"""Name a function in the caller, and find it in a worker.

A function travels as a ``FunctionRef``: a module and a name, the path of a ``__main__`` script, or,
if it was defined without a file, its pickle.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jetmap.machine import MAIN, working_directory

from .function import Function
from .source_files import digest, file_digest, is_users, loaded_digest, source_files, user_modules
from .task import guests, registered, registered_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jetmap.wire.messages import FunctionRef

__all__ = [
    "StaleFunction", "broken_files", "check_pickles", "file_of", "import_main", "import_tasks",
    "is_resolved", "load", "reference", "resolve", "running_main", "source_digest", "source_files",
]  # fmt: skip

# Functions kept that came by value or in a script.
_KEPT_VALUES = 64

_resolved: dict[tuple[str, str, str], Function] = {}
_carried: dict[tuple[str, str, str], Function] = {}  # Came by value, or in a script.
_digests: dict[str, str] = {}  # Digests of the scripts that were run as ``__mp_main__``.


class StaleFunction(Exception):  # noqa: N818
    """A function whose file has changed since this process imported it."""


def load(
    tasks: Sequence[str] = (), modules: Sequence[str] = (), main: str | None = None
) -> list[Function]:
    """Import what a worker offers: the script, the ``TASKS``, the modules.

    Args:
        tasks: ``TASKS`` arguments.
        modules: Dotted names.
        main: The path of a script whose functions live in ``__main__``.

    Raises ConfigurationError for what the user must correct (a missing file or module, a syntax
    error, no ``@task`` in ``TASKS``, two functions with one name), and whatever else the imported
    code raises.
    """
    from jetmap.errors import ConfigurationError, DuplicateFunction

    from .import_errors import format_syntax_error

    try:
        if main is not None:
            import_main(main)
        for argument in tasks:
            before = set(registered())
            module = import_tasks(argument)
            if before.issuperset(registered()):
                _require_functions(argument, module)
        for name in modules:
            import_tasks(name)
    except SyntaxError as exc:
        if exc.filename is None:  # The user's code raises it.
            raise
        raise ConfigurationError([format_syntax_error(exc)]) from exc
    except DuplicateFunction as exc:
        raise ConfigurationError([str(exc)]) from exc
    return registered()


def import_tasks(argument: str) -> types.ModuleType:
    """Import a ``TASKS`` argument: a file if it ends in ``.py`` or has a slash, else a module.

    A file is imported under its package's dotted name. Its root (for a module, the working
    directory) goes first on ``sys.path``. Raises ConfigurationError if it does not exist.
    """
    if argument.endswith(".py") or "/" in argument or os.sep in argument:
        return _import_file(argument)
    if not all(part.isidentifier() for part in argument.split(".")):
        if Path(argument).is_dir():
            raise _wrong(f"{argument!r} is a directory: name its files, as in {argument}/tasks.py")
        raise _wrong(f"{argument!r} is not a module's name; a file's name ends in .py")
    _put_on_path(str(working_directory()))
    return _import_module(argument, argument)


def import_main(path: str, *, again: bool = False) -> types.ModuleType:
    """Run a script as ``__mp_main__``, as ``multiprocessing`` does; keep it.

    Args:
        again: Run it once more if it has changed.
    """
    from jetmap.codecs.types import scripts

    file = str(Path(path).resolve())
    loaded = scripts.get(file)
    if loaded is not None and not again:
        return loaded
    try:
        source = Path(file).read_bytes()
    except OSError as exc:
        raise _wrong(f"{path}: {exc.strerror}") from exc
    if loaded is not None and digest(source) == _digests[file]:
        return loaded
    _put_on_path(str(Path(file).parent))
    module = types.ModuleType("__mp_main__")
    module.__file__ = file
    before = {name: sys.modules.get(name) for name in MAIN}
    sys.modules.update(dict.fromkeys(MAIN, module))
    try:
        exec(compile(source, file, "exec"), module.__dict__)
    except BaseException as exc:
        for name, earlier in before.items():
            if earlier is None:
                del sys.modules[name]
            else:
                sys.modules[name] = earlier
        if not isinstance(exc, SystemExit):
            raise
        raise _wrong(
            f"{path} exits when workers import it; put what it runs under "
            'if __name__ == "__main__":'
        ) from exc
    scripts[file], _digests[file] = module, digest(source)
    for old in list(scripts)[:-_KEPT_VALUES]:
        del scripts[old], _digests[old]
    return module


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


def is_resolved(ref: FunctionRef) -> bool:
    """Return whether ``resolve`` has nothing left to import."""
    return ref.value is not None or _key(ref) in (_resolved if ref.path is None else _carried)


def broken_files(error: BaseException, *homes: str) -> list[str]:
    """List the files whose change may mend an import that failed.

    Args:
        homes: What was imported: names of modules, paths of files.
    """
    files = {file_of(home) for home in homes}
    cause: BaseException | None = error
    while cause is not None:
        files |= {frame.filename for frame in traceback.extract_tb(cause.__traceback__)}
        if isinstance(cause, SyntaxError) and cause.filename:
            files.add(cause.filename)
        cause = cause.__cause__
    found = {str(Path(file).absolute()) for file in files if file.endswith(".py")}
    return sorted(file for file in found if is_users(file))


def file_of(home: str) -> str:
    """Find the path of a module (by name) or a script (by path); empty if unknown."""
    if home.endswith(".py"):
        return home
    try:
        spec = importlib.util.find_spec(home)
    except Exception:  # Its package may be what is broken.
        return ""
    return (spec.origin or "") if spec is not None else ""


def resolve(ref: FunctionRef) -> Function:
    """Find the function of a reference; import it if necessary.

    Raises StaleFunction if its file has changed since this process imported it, NotImportable if
    it does not exist, and whatever its module raises at import.
    """
    key = _key(ref)
    found = _resolved if ref.value is None and ref.path is None else _carried
    function = found.get(key)
    if function is None:
        if ref.value is None:
            function = _imported(ref)
        else:
            check_pickles(ref, ref.qualname)
            function = _unpickled(ref.value, ref.qualname)
        found[key] = function
        for old in list(_carried)[:-_KEPT_VALUES]:
            del _carried[old]
    return function


def _key(ref: FunctionRef) -> tuple[str, str, str]:
    return ref.path or ref.module, ref.qualname, ref.digest


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


def source_digest(functions: Iterable[Function]) -> str:
    """Return a digest of the user's imported modules and of functions without a file.

    It is equal on hosts that have the same code, at whatever path.
    """
    parts = {f"{name}={file_digest(path)}" for name, path in user_modules().items()}
    parts |= {f"{f.name}={digest(_pickled(f))}" for f in functions if f.by_value}
    return digest("\n".join(sorted(parts)).encode())


def _import_file(argument: str) -> types.ModuleType:
    file = Path(argument).resolve()
    if file.is_dir():
        file = file / "__init__.py"
    if not file.is_file():
        raise _wrong(_no_such_file(argument))
    package = file.parent
    names = [] if file.name == "__init__.py" else [file.stem]
    while (package / "__init__.py").is_file():
        names.insert(0, package.name)
        package = package.parent
    name = ".".join(names)
    if any("." in part for part in names):
        raise _wrong(f"{argument}: a module's name cannot have a dot; rename the file")
    _put_on_path(str(package))
    module = _import_module(name, argument)
    found = getattr(module, "__file__", None)
    if found is None or not Path(found).samefile(file):
        raise _wrong(
            f"{argument} would be imported as {name!r}, which is already {found or 'built in'}; "
            "rename the file"
        )
    return module


def _no_such_file(argument: str) -> str:
    """Say that a file does not exist, with the name that was probably meant."""
    import difflib

    path = Path(argument)
    if path.parent.is_dir() and path.is_dir():
        return f"{argument}: no such file: a package needs an __init__.py; name its files instead"
    there = sorted(str(each) for each in path.parent.glob("*.py"))
    near = difflib.get_close_matches(str(path), there, 1, 0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{argument}: no such file in {working_directory()}{hint}"


def _import_module(name: str, argument: str) -> types.ModuleType:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        # If the user's module fails to import another one, the traceback matters instead.
        if exc.name is not None and (name == exc.name or name.startswith(f"{exc.name}.")):
            hint = f"; there is a file {name}.py" if Path(f"{name}.py").is_file() else ""
            raise _wrong(f"{argument}: no such module{hint}") from exc
        raise


def _put_on_path(directory: str) -> None:
    if directory not in sys.path and not (directory == str(working_directory()) and "" in sys.path):
        sys.path.insert(0, directory)


def _require_functions(argument: str, module: types.ModuleType) -> None:
    """Raise ConfigurationError for a module without functions, its own or others'."""
    name = module.__name__
    values = list(vars(module).values())
    for function in registered():
        if function.module == name or function.module.startswith(f"{name}."):
            return
        if any(function.is_of(value) for value in values):
            return
    raise _wrong(f"{argument} has no @task function; decorate one: @task above its def")


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

        raise NotImportable(f"{ref.module} has no {ref.qualname} in a worker") from exc
    return found


def _pickled(function: Function, limit: int | None = None) -> bytes:
    from .by_value import pickled  # It imports cloudpickle, which few need.

    return pickled(function, limit)


def _unpickled(value: bytes, qualname: str) -> Function:
    from .by_value import unpickled

    return unpickled(value, qualname)


def check_pickles(ref: FunctionRef | None, what: str) -> None:
    """Raise NotImportable for a pickle of another Python, which would crash this process."""
    from jetmap.wire.versions import pickles

    if ref is not None and ref.pickles and ref.pickles != pickles():
        from jetmap.errors import NotImportable

        raise NotImportable(
            f"{what} was pickled by {ref.pickles}; this worker has {pickles()}: use the "
            "same versions on both sides, or move the function to a module that workers import"
        )


def _wrong(problem: str) -> Exception:
    from jetmap.errors import ConfigurationError

    return ConfigurationError([problem])
