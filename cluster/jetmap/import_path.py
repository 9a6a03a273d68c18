"""Interpreters that import jetmap and its needs past the user's files.

A user's queue.py or types.py, in a directory that comes first on ``sys.path``, stands in for the
standard library's module of that name, for everything that is imported later.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from jetmap.machine import working_directory

# Packages that jetmap imports; a file of such a name is the user's own.
_NEEDS = frozenset(
    (
        "cloudpickle", "fastapi", "httptools", "msgpack", "msgspec", "nats", "prometheus_client",
        "psutil", "pydantic", "rich", "starlette", "typer", "uvicorn", "uvloop",
    )
)  # fmt: skip
_ROOT = str(Path(__file__).parent.parent)  # The directory that jetmap is imported from.


def module(name: str) -> list[str]:
    """Return the command that runs a module of jetmap in a new interpreter.

    The working directory is not on its path, unless jetmap is there.
    """
    is_here = str(working_directory()) == _ROOT
    return [sys.executable, *([] if is_here else ["-P"]), "-m", name]


def own_first(setup: str, path: str) -> str:
    """Return the beginning of a program for ``python -c`` that will import jetmap.

    Afterwards ``sys.path`` is the interpreter's own, without the working directory, then ``path``.

    Args:
        setup: A statement before, or empty.
        path: Expression for the directories to add.
    """
    own = "own = [each for each in sys.path if each]"
    first = f"sys.path[:] = [{_ROOT!r}][{_ROOT!r} in own:] + own + {path}"
    return "".join(f"{part}; " for part in ("import sys", setup, own, first) if part)


def hiding_files(path: Sequence[str]) -> list[str]:
    """Return what hides modules of the standard library on an import path."""
    return _own_files(path, sys.stdlib_module_names)


def _own_files(path: Sequence[str], hidden: frozenset[str]) -> list[str]:
    """Return the files and packages of these names that come before the standard library."""
    library = os.path.dirname(os.__file__)  # noqa: PTH120
    found = []
    for directory in path:
        if directory == library:
            break
        try:
            names = os.listdir(directory or ".")  # noqa: PTH208
        except OSError:
            continue
        for name in sorted(names):
            stem, ending = os.path.splitext(name)  # noqa: PTH122
            if stem in hidden and ending in ("", ".py"):
                file = Path(directory, name)
                if ending or (file / "__init__.py").is_file():
                    found.append(str(file))
    return found


def hiding_advice(path: Sequence[str]) -> str:
    """Return what to do about files that hide modules, or an empty text."""
    return _advice(hiding_files(path), _hiding_needs(path))


def note_hiding_files(error: BaseException, path: Sequence[str]) -> None:
    """Add a note to an error if this process has loaded files in the place of what jetmap needs."""
    advice = _advice(_loaded(hiding_files(path)), _loaded(_hiding_needs(path)))
    if advice:
        error.add_note(advice)


def _hiding_needs(path: Sequence[str]) -> list[str]:
    # A package of the name may be the true one, in a directory of PYTHONPATH.
    return [file for file in _own_files(path, _NEEDS) if file.endswith(".py")]


def _loaded(files: list[str]) -> list[str]:
    return [file for file in files if _is_loaded(Path(file).absolute())]


def _is_loaded(file: Path) -> bool:
    source = getattr(sys.modules.get(file.stem), "__file__", None)
    return source is not None and Path(source) in (file, file / "__init__.py")


def _advice(modules: list[str], packages: list[str]) -> str:
    parts = []
    if modules:
        verb = "hides the module" if len(modules) == 1 else "hide the modules"
        ending = "that name: rename it" if len(modules) == 1 else "those names: rename them"
        parts.append(f"{', '.join(modules)} {verb} of Python's standard library of {ending}")
    if packages:
        verb = "hides the package" if len(packages) == 1 else "hide the packages"
        ending = "that name: rename it" if len(packages) == 1 else "those names: rename them"
        parts.append(f"{', '.join(packages)} {verb} needed by jetmap of {ending}")
    return "; ".join(parts)
