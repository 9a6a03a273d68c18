"""Count opcodes between SIGUSR1 and SIGUSR2, in each process that ``bench.opcodes`` starts."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import CodeType, FrameType
from typing import Any


class Counter:
    """Opcodes and calls, by function."""

    def __init__(self, directory: str) -> None:
        self._path = Path(directory) / str(os.getpid())
        self._opcodes: dict[CodeType, int] = {}
        self._calls: dict[CodeType, int] = {}

    def begin(self, *_: object) -> None:
        """Count in each frame that is entered, or resumed, from now on."""
        self._opcodes.clear()
        self._calls.clear()
        sys.settrace(self._on_call)

    def end(self, *_: object) -> None:
        """Write the counts to a file that is named after the process."""
        sys.settrace(None)
        rows = [
            (f"{code.co_filename}:{code.co_qualname}", self._opcodes.get(code, 0), calls)
            for code, calls in self._calls.items()
        ]
        draft = self._path.with_suffix(".draft")
        draft.write_text(json.dumps(rows))
        draft.rename(self._path)

    def _on_call(self, frame: FrameType, event: str, arg: Any) -> Any:
        self._calls[frame.f_code] = self._calls.get(frame.f_code, 0) + 1
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._on_opcode

    def _on_opcode(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "opcode":
            self._opcodes[frame.f_code] = self._opcodes.get(frame.f_code, 0) + 1
        return self._on_opcode


if directory := os.environ.get("BENCH_OPCODES"):
    counter = Counter(directory)
    signal.signal(signal.SIGUSR1, counter.begin)
    signal.signal(signal.SIGUSR2, counter.end)
