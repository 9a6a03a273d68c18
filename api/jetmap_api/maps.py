"""``POST /map/{function}``: a list in, results out.

A plain ASGI application: for a map of one item, there is no request object, no validation model and
no further task between the socket and the cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from jetmap.client.tolerant import TolerantMap
from jetmap.dispatch.item_feed import ItemFeed
from jetmap.dispatch.sources import RawItems, Source
from jetmap.settings import LimitSettings

from .admission import PASSING_BYTES, Admission, Reservation
from .answers import ListAnswer, Map
from .asgi import Receive, Scope, Send
from .bodies import json_elements, msgpack_elements, read_body
from .disconnect import DisconnectWatcher
from .lines import LinesBody
from .prefer import Preferred
from .problems import answer_nobody, bad_parameter, end_cancelled, problem_of, refuse
from .request import MapRequest, check_kwargs, read_request
from .streams import Events, Lines, StreamAnswer

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster


class Maps:
    """The endpoint. cluster: finds the cluster of a request."""

    def __init__(
        self, cluster: Callable[[Scope], Cluster], admission: Admission, debug: bool
    ) -> None:
        self._cluster = cluster
        self._admission = admission
        self._limits = self._fitted = admission.limits
        self._max_item = 0  # Bytes of an item in ``_fitted``.
        self._debug = debug

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.serve(scope["path_params"]["function"], scope, receive, send)

    async def serve(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        watcher = DisconnectWatcher()
        answer: ListAnswer | None = None
        reservation: Reservation | None = None
        preferred: Preferred | None = None
        try:
            with watcher:
                request = read_request(scope)
                cluster = self._cluster(scope)
                reservation = self._admission.reserve(cluster)
                if request.prefer is not None:
                    preferred = await Preferred.begin(cluster, name, request, scope, reservation)
                if preferred is not None:
                    answer = await preferred.serve(
                        scope, receive, send, watcher, self._limits, self._debug
                    )
                else:
                    reservation.enter(cluster.open_maps)
                    serve = self._lines if request.body == "jsonl" else self._array
                    answer = await serve(
                        cluster, name, request, reservation, receive, send, watcher
                    )
            if answer is not None and not watcher.left:
                watcher.answering = True
                await answer.send(send)
        except asyncio.CancelledError:
            await end_cancelled(send, answering=watcher.answering or watcher.left)
        except Exception as exc:
            if watcher.answering:
                raise
            if not watcher.left:
                await refuse(send, problem_of(exc, self._debug))
        finally:
            if answer is not None:
                answer.close()
            if reservation is not None:
                reservation.close()
            if preferred is not None:
                await preferred.aclose()
        if watcher.left and not watcher.answering:
            await answer_nobody(send)

    async def _array(
        self,
        cluster: Cluster,
        name: str,
        request: MapRequest,
        reservation: Reservation,
        receive: Receive,
        send: Send,
        watcher: DisconnectWatcher,
    ) -> ListAnswer | None:
        """Run a body that is read and checked whole before anything runs."""
        limits = self._fitting(cluster.max_item)
        body = await read_body(receive, watcher, request.framing, limits, reservation)
        format = request.format
        split = json_elements if format == "json" else msgpack_elements
        source = RawItems(await split(body, limits, reservation), format)
        del body
        watcher.watch(receive)
        run = await self._open(cluster, name, source, request, reservation)
        return await self._answer(run, request, reservation, None, send, watcher)

    async def _lines(
        self,
        cluster: Cluster,
        name: str,
        request: MapRequest,
        reservation: Reservation,
        receive: Receive,
        send: Send,
        watcher: DisconnectWatcher,
    ) -> ListAnswer | None:
        """Run a body while it arrives."""
        if request.options.max_failed is not None and request.options.max_failed.is_share:
            raise bad_parameter(
                "max_failed",
                "max_failed is a share of a list, whose length is not known of JSON lines: send a "
                "JSON array, or give a number",
            )
        reservation.add(PASSING_BYTES)
        feed = ItemFeed("json")
        run = await self._open(cluster, name, feed, request, reservation)
        limits = self._fitting(cluster.max_item)
        body = LinesBody(receive, request.framing, feed, watcher, limits, reservation)
        try:
            return await self._answer(run, request, reservation, body, send, watcher)
        finally:
            await body.aclose()

    def _fitting(self, max_item: int) -> LimitSettings:
        """Return the limits, with items that fit into the messages of the cluster's broker."""
        if max_item != self._max_item:
            self._max_item, self._fitted = max_item, self._limits.fitting(max_item)
        return self._fitted

    async def _open(
        self,
        cluster: Cluster,
        name: str,
        source: Source,
        request: MapRequest,
        reservation: Reservation,
    ) -> Map:
        keywords = request.options.kwargs
        checked = check_kwargs(cluster, name, keywords)
        reservation.leave()
        is_stream = request.answer == "jsonl" or request.answer == "sse"
        run = await cluster.open(
            name,
            source,
            format=request.format,
            kwargs=request.kwargs,
            timeout=request.options.timeout,
            ordered=request.options.ordered and is_stream,
            early=is_stream,
            whole=not is_stream,
            values=request.options.values,
            labels=request.options.labels,
            max_parallel=request.options.max_parallel,
        )
        if not checked:  # Workers have come since.
            try:
                check_kwargs(cluster, name, keywords)
            except BaseException:
                await run.aclose()
                raise
        if request.options.max_failed is not None:
            return TolerantMap(run, request.options.max_failed)
        return run

    async def _answer(
        self,
        run: Map,
        request: MapRequest,
        reservation: Reservation,
        body: LinesBody | None,
        send: Send,
        watcher: DisconnectWatcher,
    ) -> ListAnswer | None:
        """Stream the answer, or return the list that is still to be sent."""
        source = request.format
        fail = request.fail
        if request.answer == "jsonl" or request.answer == "sse":
            style = Lines() if request.answer == "jsonl" else Events()
            limits, debug = self._limits, self._debug
            stream = StreamAnswer(
                send,
                style,
                watcher,
                limits,
                reservation,
                fail=fail,
                after_body=request.after_body,
                debug=debug,
            )
            await stream.serve(run, source, body)
            return None
        answer = ListAnswer(
            request.answer, self._limits, reservation, collect=not fail, debug=self._debug
        )
        try:
            await answer.gather(run, source)
        except BaseException:
            answer.close()
            raise
        return answer
