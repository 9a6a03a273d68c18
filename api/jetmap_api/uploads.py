"""Submit jobs: store their bodies as they arrive.

Their size and number of items are limited by the store, not by this process (``max_body_bytes`` and
``max_list`` are for maps).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from jetmap.settings import LimitSettings
from jetmap.wire.split import splitter

from .admission import PASSING_BYTES, Admission, Reservation
from .asgi import Receive, Scope, Send
from .bodies import Arrival
from .disconnect import DisconnectWatcher
from .job_documents import accepted
from .job_request import JobRequest, read_job_request
from .media import USE_JSON
from .request import check_kwargs
from .watched import serve_watched

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster
    from jetmap.jobs.record import Record
    from jetmap.jobs.upload import Upload

logger = logging.getLogger(__name__)

ABORT_SECONDS = 5.0


class Submissions:
    """``POST /jobs/{function}``, a plain ASGI application.

    cluster: finds the cluster of a request.
    """

    def __init__(
        self, cluster: Callable[[Scope], Cluster], admission: Admission, debug: bool
    ) -> None:
        self._cluster = cluster
        self._admission = admission
        self._debug = debug

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.serve(scope["path_params"]["function"], scope, receive, send)

    async def serve(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 202 once the whole body is durable."""

        async def submit(send: Send, watcher: DisconnectWatcher) -> None:
            request = read_job_request(scope)
            cluster = self._cluster(scope)
            reservation = self._admission.reserve(cluster)
            try:
                reservation.add(PASSING_BYTES)
                upload = await begin(cluster, name, request)
                limits = self._admission.limits.fitting(cluster.max_item)
                record = await store(upload, request, receive, watcher, limits, reservation)
            finally:
                reservation.close()
            await accepted(send, scope, record)

        await serve_watched(submit, send, self._debug)


async def begin(cluster: Cluster, function: str, request: JobRequest) -> Upload:
    """Begin an upload.

    Raises the errors of ``Jobs.begin``; Problem: 400 for keyword parameters that do not fit.
    """
    checked = check_kwargs(cluster, function, request.keywords)
    upload = await cluster.jobs.begin(
        function,
        format=request.format,
        kwargs=request.kwargs,
        caller=request.caller,
        key=request.key,
        ttl=request.ttl,
        timeout=request.timeout,
        reserve=request.reserve,
        max_failed=request.max_failed,
        values=request.values,
        labels=request.labels,
        max_parallel=request.max_parallel,
    )
    if not checked:  # Workers have come since.
        try:
            check_kwargs(cluster, function, request.keywords)
        except BaseException:
            await abort(upload)
            raise
    return upload


async def store(
    upload: Upload,
    request: JobRequest,
    receive: Receive,
    watcher: DisconnectWatcher,
    limits: LimitSettings,
    reservation: Reservation,
) -> Record:
    """Store the whole body; return the job once all of it is durable.

    Nothing stays if the body is malformed, or if the client leaves before its end or sends nothing
    for a while (408). A client that leaves after the end has submitted the job, and finds it with
    the same Idempotency-Key.
    """
    try:
        await _read(upload, request, receive, watcher, limits, reservation)
        return await upload.commit()
    except BaseException:
        await abort(upload)
        raise


async def abort(upload: Upload) -> None:
    """Remove the upload; if the broker is away, the store's own sweep does so later."""
    try:
        async with asyncio.timeout(ABORT_SECONDS):
            await upload.abort()
    except Exception as exc:
        logger.warning(
            "upload %s is not removed yet; the store will do so later: %r", upload.id, exc
        )


async def _read(
    upload: Upload,
    request: JobRequest,
    receive: Receive,
    watcher: DisconnectWatcher,
    limits: LimitSettings,
    reservation: Reservation,
) -> None:
    split = splitter(request.body, limits, USE_JSON)
    arrival = Arrival(
        receive,
        request.framing,
        idle=limits.job_upload_idle,
        rate=limits.min_body_rate,
        setting="job_upload_idle",
        by_line=request.body == "jsonl",
    )
    while arrival.more:
        data = await arrival.next()
        if data is None:
            watcher.leave()
            await asyncio.sleep(0)  # Leaving takes effect here.
            continue
        split.feed(data)
        if not arrival.more:
            split.close()
        reservation.hold(split.held)
        while elements := split.next_elements():
            await upload.put(elements)
