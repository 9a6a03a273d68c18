"""Every way in which a function goes wrong, for the tests' functions and the soak's."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def go_wrong(how: str) -> None:
    """Go wrong as ``how`` says: ``name`` or ``name:argument``; empty for not at all."""
    name, _, argument = how.partition(":")
    match name:
        case "":
            return
        case "raise":
            raise ValueError(argument or "as it was told")
        case "exit":
            os._exit(int(argument or 3))
        case "sys.exit":
            sys.exit(3)
        case "segfault":
            ctypes.string_at(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "agent":
            # As where the kernel kills a whole container.
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)  # Its workers end with it.
        case "loop":
            while True:
                pass
        case "sleep":
            time.sleep(float(argument))  # It computes, for too long.
        case "hold":
            # PyDLL does not release the GIL: nothing else of this process runs meanwhile.
            ctypes.PyDLL(None).sleep(int(argument or 60))
        case "child":
            # A process of its own, which would outlive a function that is killed.
            with subprocess.Popen(["sleep", "1000"]) as child:
                Path(argument).write_text(str(child.pid))
                child.wait()
        case "fork-kill":
            # The child, a copy of the worker, has all that the worker had open.
            if os.fork() == 0:
                time.sleep(1000)
            os.kill(os.getpid(), signal.SIGKILL)
        case "session" | "session-exit":
            # A process that has left everything that it could be found by.
            child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
            Path(argument).write_text(str(child.pid))
            if name == "session-exit":
                os._exit(3)
            child.wait()
        case "memory":
            bytearray(int(argument))
        case _:
            raise AssertionError(f"how is {how!r}?")
