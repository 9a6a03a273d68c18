"""The same work on one core, with a plain loop: ``python -m jetmap.demo.serial``.

Reads ``{"function": name, "items": […]}`` from stdin and writes the seconds to stdout: of
CPU, so that another program on this machine cannot make jetmap look better than it is. It is
a process of its own so that nothing of jetmap runs beside the loop.
"""

from __future__ import annotations

import json
import os
import sys
import time


def main() -> None:
    """Runs the loop pinned to one core, as a worker is."""
    from jetmap.cli import tether

    tether.hold()
    order = json.load(sys.stdin)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    from jetmap.demo import tasks

    function = getattr(tasks, order["function"])
    began = time.process_time()
    for item in order["items"]:
        try:
            function(item)
        except (SyntaxError, ValueError, RecursionError):
            pass  # that file's error, as in the map
    json.dump(time.process_time() - began, sys.stdout)


if __name__ == "__main__":
    main()
