"""Work beside the maps of ``jetmap demo --stay``, so that there is something to look at.

Maps of one item show how long a short map waits beside large ones. Jobs show what stays when a map
has ended; a few of the files that they measure do not parse, so they have failures, too.
"""

from __future__ import annotations

import http.client
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from .http import DemoError, GatewayClient
from .work import FIRST_NUMBER

SHORT_SECONDS = 0.4  # Seconds between two maps of one item.
JOB_SECONDS = 2.0  # Seconds between two looks at a job.
MOST_JOBS = 5  # Jobs that are kept.
LABELS = "team=demo,night=yes"


@contextmanager
def work_beside(gateway: GatewayClient, files: Sequence[str]) -> Iterator[None]:
    """Run short maps and jobs in threads, until the block ends or the gateway does not answer."""
    over = threading.Event()
    works: tuple[Callable[[GatewayClient, threading.Event], None], ...] = (
        short_maps,
        lambda client, over: jobs(client, over, files),
    )
    for work in works:
        arguments = (work, gateway.another(), over)
        threading.Thread(target=_run, args=arguments, name="demo-beside", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def short_maps(gateway: GatewayClient, over: threading.Event) -> None:
    """Run a map of one item again and again."""
    for number in itertools.count(FIRST_NUMBER, 2):
        for _ in gateway.map("next_prime", [number]):
            pass
        if over.wait(SHORT_SECONDS):
            return


def jobs(gateway: GatewayClient, over: threading.Event, files: Sequence[str]) -> None:
    """Run one job after the other, and remove the oldest of those that have ended."""
    kept: deque[str] = deque()
    while True:
        kept.append(gateway.submit("measure", files, LABELS))
        while not gateway.is_over(kept[-1]):
            if over.wait(JOB_SECONDS):
                return
        if len(kept) > MOST_JOBS:
            gateway.delete(kept.popleft())
        if over.wait(JOB_SECONDS):
            return


def _run(
    work: Callable[[GatewayClient, threading.Event], None],
    gateway: GatewayClient,
    over: threading.Event,
) -> None:
    try:
        while not over.is_set():
            try:
                work(gateway, over)
            except DemoError:  # Somebody who looks round has cancelled or deleted it.
                over.wait(JOB_SECONDS)
    except (OSError, http.client.HTTPException, ValueError):
        pass  # The gateway stops; the demo's own maps say so.
    finally:
        gateway.close()
