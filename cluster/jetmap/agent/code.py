"""Write down the source that the workers of a `jetmap up` have loaded, for callers to compare.

The file lies in the user's runtime directory; only the user's own processes read or write it.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec

from jetmap.wire.worker_start import Ready

logger = logging.getLogger(__name__)


class Code(msgspec.Struct, frozen=True):
    """The source that workers have loaded."""

    functions: dict[str, str] = {}  # Module of each offered function.
    files: dict[str, str] = {}  # Digest of each of the user's files; empty where workers differ.


def read_code(path: Path) -> Code | None:
    """Read what the workers have written down; None if the file is not there yet, or gone."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Code)
    except (OSError, msgspec.DecodeError):
        return None


class CodeFile:
    """Keep the file up to date as workers start.

    Args:
        path: Where to keep it; None keeps no file.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._slots: dict[int, dict[str, str]] = {}
        self._written: Code | None = None

    def on_loaded(self, slot: int, ready: Ready) -> None:
        """Note what the worker of this slot has loaded."""
        if self._path is None:
            return
        self._slots[slot] = dict(zip(ready.files, ready.digests, strict=False))
        code = Code({f.name: f.module for f in ready.functions}, self._merged())
        if code == self._written:
            return
        draft = Path(f"{self._path}.{os.getpid()}")
        try:
            draft.touch(0o600)
            draft.write_bytes(msgspec.json.encode(code))
            draft.replace(self._path)
        except OSError as error:
            logger.warning("%s cannot be written: %s", self._path, error.strerror)
        else:
            self._written = code

    def _merged(self) -> dict[str, str]:
        merged: dict[str, str] = {}
        for files in self._slots.values():
            for file, digest in files.items():
                merged[file] = digest if merged.get(file, digest) == digest else ""
        return merged
