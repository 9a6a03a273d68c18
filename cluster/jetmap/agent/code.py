"""Which source the workers of a `jetmap up` have loaded, written down for callers to compare.

The file lies in the user's runtime directory; only the user's own processes read or write it.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec

from jetmap.wire.messages import Ready

logger = logging.getLogger(__name__)


class Code(msgspec.Struct, frozen=True):
    """functions: the module of each offered function. files: the digest of each of the user's
    source files as the workers have loaded it; empty where they differ."""

    functions: dict[str, str] = {}
    files: dict[str, str] = {}


def read_code(path: Path) -> Code | None:
    """What the workers have written down; None: nothing yet, or the file is gone."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Code)
    except (OSError, msgspec.DecodeError):
        return None


class CodeFile:
    """Keep the file up to date as workers start. path: None keeps none."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._slots: dict[int, dict[str, str]] = {}
        self._written: Code | None = None

    def loaded(self, slot: int, ready: Ready) -> None:
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
