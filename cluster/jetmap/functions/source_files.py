"""The user's source files that this process has imported, and digests of them."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from jetmap.machine import MAIN

from .function import Function, file_stamp

_DIGITS = 16
_NOT_USERS = (f"{Path(os.__file__).parent}{os.sep}", f"{Path(__file__).parent.parent}{os.sep}")

_digests: dict[str, tuple[tuple[int, int], str]] = {}
# The number of modules at the last call of ``note_sources``.
_modules = 0
# The digest of each file when ``note_sources`` first saw it.
_loaded: dict[str, str] = {}


def source_files() -> list[str]:
    """List the user's source files that this process has imported.

    Excluded are the standard library, installed packages and jetmap.
    """
    return sorted(set(user_modules().values()))


def user_modules() -> dict[str, str]:
    """Return the names and source files of the user's imported modules."""
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or not file.endswith(".py") or not os.path.isabs(file):  # noqa: PTH117
            continue
        if name.partition(".")[0] == "jetmap_api" or not is_users(file):
            continue
        found["__main__" if name in MAIN else name] = file
    return found


def source_digest(functions: Iterable[Function]) -> str:
    """Return a digest of the user's imported modules and of functions without a file.

    It is equal on hosts that have the same code, at whatever path.
    """
    parts = {f"{name}={file_digest(path)}" for name, path in user_modules().items()}
    by_value = [function for function in functions if function.by_value]
    if by_value:
        from .by_value import pickled  # It imports cloudpickle, which few need.

        parts |= {f"{function.name}={digest(pickled(function))}" for function in by_value}
    return digest("\n".join(sorted(parts)).encode())


def is_users(file: str) -> bool:
    """Return whether a file is outside the standard library, installed packages and jetmap."""
    if file.startswith(_NOT_USERS):
        return False
    return not any(f"{os.sep}{each}{os.sep}" in file for each in ("site-packages", "dist-packages"))


def note_sources() -> None:
    """Remember the content of user's files that were imported since the last call.

    The ``__main__`` script is excluded, because it is run again when it has changed.
    """
    global _modules
    if len(sys.modules) == _modules:
        return
    _modules = len(sys.modules)
    for name, path in user_modules().items():
        if name != "__main__" and path not in _loaded:
            _loaded[path] = file_digest(path)


def changed_sources() -> list[str]:
    """List the files that have changed since ``note_sources`` first saw them."""
    return [path for path, loaded in _loaded.items() if file_digest(path) != loaded]


def loaded_digest(function: Function) -> str:
    """Return the digest of the function's file as it was at the definition."""
    if file_stamp(function.file) == function.stamp:
        return file_digest(function.file)
    return "changed since"


def file_digest(path: str | None) -> str:
    """Return the digest of a file as it is now; empty if there is none."""
    stamp = file_stamp(path)
    if path is None or stamp is None:
        return ""
    known = _digests.get(path)
    if known is None or known[0] != stamp:
        known = _digests[path] = (stamp, digest(Path(path).read_bytes()))
    return known[1]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_DIGITS]
