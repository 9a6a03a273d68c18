"""Run the same work on one core in a plain loop: ``python -m jetmap.demo.serial``.

The program reads ``{"function": name, "items": […]}`` from stdin. It writes lines to stdout: the
number of finished items from time to time, and last ``{"seconds": …, "cpu": …}``, the wall-clock
time (by which the map is measured, too) and the CPU time. It is a process of its own, so that
nothing of jetmap runs beside the loop.
"""

from __future__ import annotations

import json
import os
import sys
import time

TELL_SECONDS = 0.1  # Seconds between two lines of progress.


def main() -> None:
    """Run the loop, pinned to one core like a worker."""
    order = json.load(sys.stdin)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    from . import tasks

    function = getattr(tasks, order["function"])
    began, cpu = time.perf_counter(), time.process_time()
    said = began
    for number, item in enumerate(order["items"]):
        try:
            function(item)
        except (SyntaxError, ValueError, RecursionError):
            pass  # An error of that file, as in the map.
        if time.perf_counter() - said > TELL_SECONDS:
            said = time.perf_counter()
            print(number + 1, flush=True)  # noqa: T201
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "cpu": time.process_time() - cpu}))  # noqa: T201


if __name__ == "__main__":
    main()
