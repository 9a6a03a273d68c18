"""``POST /map/{function}``: a list in, results out.

A plain ASGI application: no request object, no validation model and no task of its own
stands between the socket and the cluster for a map of one item.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from jetmap.dispatch.sources import ItemFeed, RawItems, Source

from .admission import PASSING_BYTES, Admission, Hold
from .answers import ListAnswer, Map
from .asgi import Receive, Scope, Send
from .bodies import json_elements, msgpack_elements, read_body
from .disconnect import Departure
from .keywords import check_kwargs
from .lines import LinesBody
from .prefer import Preferred
from .problems import answer_nobody, end_cancelled, problem_of, refuse
from .request import MapRequest, read_request
from .streams import Events, Lines, Stream

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster


class Maps:
    """The endpoint. cluster: finds the cluster of a request."""

    def __init__(
        self, cluster: Callable[[Scope], Cluster], admission: Admission, debug: bool
    ) -> None:
        self._cluster = cluster
        self._admission = admission
        self._limits = admission.limits
        self._debug = debug

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.serve(scope["path_params"]["function"], scope, receive, send)

    async def serve(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        departure = Departure()
        answer: ListAnswer | None = None
        hold: Hold | None = None
        try:
            with departure:
                request = read_request(scope)
                cluster = self._cluster(scope)
                hold = self._admission.hold(cluster)
                preferred: Preferred | None = None
                if request.prefer is not None:
                    preferred = await Preferred.begin(cluster, name, request, scope, hold)
                if preferred is not None:
                    answer = await preferred.serve(
                        scope, receive, send, departure, self._limits, self._debug
                    )
                else:
                    hold.enter(cluster.open_maps)
                    serve = self._lines if request.body == "jsonl" else self._array
                    answer = await serve(cluster, name, request, hold, receive, send, departure)
            if answer is not None and not departure.left:
                departure.answering = True
                await answer.send(send)
        except asyncio.CancelledError:
            await end_cancelled(send, answering=departure.answering or departure.left)
        except Exception as exc:
            if departure.answering:
                raise
            if not departure.left:
                await refuse(send, problem_of(exc, self._debug))
        finally:
            if answer is not None:
                answer.close()
            if hold is not None:
                hold.close()
        if departure.left and not departure.answering:
            await answer_nobody(send)

    async def _array(
        self,
        cluster: Cluster,
        name: str,
        request: MapRequest,
        hold: Hold,
        receive: Receive,
        send: Send,
        departure: Departure,
    ) -> ListAnswer | None:
        """A body that is read and checked whole before anything runs."""
        limits = self._limits.fitting(cluster.max_item)
        body = await read_body(receive, departure, request.framing, limits, hold)
        format = request.format
        split = json_elements if format == "json" else msgpack_elements
        source = RawItems(await split(body, limits, hold), format)
        del body
        departure.watch(receive)
        run = await self._open(cluster, name, source, request, hold)
        return await self._answer(run, request, hold, None, send, departure)

    async def _lines(
        self,
        cluster: Cluster,
        name: str,
        request: MapRequest,
        hold: Hold,
        receive: Receive,
        send: Send,
        departure: Departure,
    ) -> ListAnswer | None:
        """A body that is run while it arrives."""
        hold.add(PASSING_BYTES)
        feed = ItemFeed("json")
        run = await self._open(cluster, name, feed, request, hold)
        limits = self._limits.fitting(cluster.max_item)
        body = LinesBody(receive, request.framing, feed, departure, limits, hold)
        try:
            return await self._answer(run, request, hold, body, send, departure)
        finally:
            body.close()

    async def _open(
        self, cluster: Cluster, name: str, source: Source, request: MapRequest, hold: Hold
    ) -> Map:
        keywords = request.options.kwargs
        checked = check_kwargs(cluster, name, keywords)
        hold.leave()
        run = await cluster.open(
            name,
            source,
            format=request.format,
            kwargs=request.kwargs,
            timeout=request.options.timeout,
            ordered=request.options.ordered and request.answer in ("jsonl", "sse"),
        )
        if not checked:  # Workers have come since.
            try:
                check_kwargs(cluster, name, keywords)
            except BaseException:
                await run.aclose()
                raise
        return run

    async def _answer(
        self,
        run: Map,
        request: MapRequest,
        hold: Hold,
        body: LinesBody | None,
        send: Send,
        departure: Departure,
    ) -> ListAnswer | None:
        """Streams the answer, or returns the list that is still to be sent."""
        source = request.format
        fail = request.fail
        if request.answer == "jsonl" or request.answer == "sse":
            style = Lines() if request.answer == "jsonl" else Events()
            limits, debug = self._limits, self._debug
            stream = Stream(
                send,
                style,
                departure,
                limits,
                hold,
                fail=fail,
                after_body=request.after_body,
                debug=debug,
            )
            await stream.serve(run, source, body)
            return None
        answer = ListAnswer(request.answer, self._limits, hold, collect=not fail, debug=self._debug)
        try:
            await answer.gather(run, source)
        except BaseException:
            answer.close()
            raise
        return answer
