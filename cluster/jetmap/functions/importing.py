"""Import what a worker offers: task files, modules, and scripts.

A script is run as ``__mp_main__``, as ``multiprocessing`` does.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from jetmap.machine import MAIN, working_directory

from .function import Function
from .source_files import digest, is_users
from .task import registered

if TYPE_CHECKING:
    from collections.abc import Sequence

_KEPT_SCRIPTS = 64

_digests: dict[str, str] = {}  # Digests of the scripts that were run.


def load(
    tasks: Sequence[str] = (),
    modules: Sequence[str] = (),
    main: str | None = None,
    on_import: Callable[[str], None] = lambda name: None,
) -> list[Function]:
    """Import what a worker offers: the script, the ``TASKS``, the modules.

    Args:
        tasks: ``TASKS`` arguments.
        modules: Dotted names.
        main: The path of a script whose functions live in ``__main__``.
        on_import: Called before each import, with its argument.

    Raises ConfigurationError for what the user must correct (a missing file or module, a syntax
    error, no ``@task`` in ``TASKS``, two functions with one name), and whatever else the imported
    code raises.
    """
    from jetmap.errors import ConfigurationError, DuplicateFunction

    from .import_errors import format_syntax_error

    try:
        if main is not None:
            on_import(main)
            import_main(main)
        for argument in tasks:
            on_import(argument)
            before = set(registered())
            module = import_tasks(argument)
            if before.issuperset(registered()):
                _require_functions(argument, module)
        for name in modules:
            on_import(name)
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
    for old in list(scripts)[:-_KEPT_SCRIPTS]:
        del scripts[old], _digests[old]
    return module


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
            if Path(argument).is_file():
                hint = f"; {argument} is a file, but the name of a Python file ends in .py"
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
    if module.__spec__ is not None and module.__spec__.origin is None:
        raise _wrong(
            f"{argument} is a directory without __init__.py; name its files: "
            f"{name.replace('.', '/')}/FILE.py"
        )
    raise _wrong(f"{argument} has no @task function; decorate one: @task above its def")


def _wrong(problem: str) -> Exception:
    from jetmap.errors import ConfigurationError

    return ConfigurationError([problem])
