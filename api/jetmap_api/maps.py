"""``POST /map/{function}``: a list in, results out.

A plain ASGI application: no request object, no validation model and no task of its own
stands between the socket and the cluster for a map of one item.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from jetmap.client.sources import Feed, RawItems, Source

from .answers import ListAnswer, Map
from .asgi import Receive, Scope, Send
from .awaited import Preferred
from .bodies import json_elements, msgpack_elements, read_body
from .departure import Departure
from .keywords import check_kwargs
from .limits import Limits
from .lines import LinesBody
from .problems import problem_of, refuse
from .request import MapRequest, read_request
from .streams import Events, Lines, Stream

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster


class Maps:
    """The endpoint. cluster: finds the cluster of a request."""

    def __init__(self, cluster: Callable[[Scope], Cluster], limits: Limits, debug: bool) -> None:
        self._cluster = cluster
        self._limits = limits
        self._debug = debug

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.serve(scope["path_params"]["function"], scope, receive, send)

    async def serve(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        departure = Departure()
        answer: ListAnswer | None = None
        try:
            with departure:
                request = read_request(scope)
                preferred: Preferred | None = None
                if request.prefer is not None:
                    cluster = self._cluster(scope)
                    preferred = await Preferred.begin(cluster, name, request, scope)
                if preferred is not None:
                    answer = await preferred.serve(
                        scope, receive, send, departure, self._limits, self._debug
                    )
                elif request.body == "jsonl":
                    answer = await self._lines(name, request, scope, receive, send, departure)
                else:
                    answer = await self._array(name, request, scope, receive, send, departure)
        except Exception as exc:
            if not departure.left:
                await refuse(send, problem_of(exc, self._debug))
            return
        if answer is None:
            return
        try:
            if not departure.left:
                await answer.send(send)
        finally:
            answer.close()

    async def _array(
        self,
        name: str,
        request: MapRequest,
        scope: Scope,
        receive: Receive,
        send: Send,
        departure: Departure,
    ) -> ListAnswer | None:
        """A body that is read and checked whole before anything runs."""
        cluster = self._cluster(scope)
        limits = self._limits.on(cluster)
        body = await read_body(receive, departure, request.length, limits)
        format = request.format
        split = json_elements if format == "json" else msgpack_elements
        source = RawItems(await split(body, limits), format)
        del body
        departure.watch(receive)
        run = await self._open(cluster, name, source, request)
        return await self._answer(run, request, None, send, departure)

    async def _lines(
        self,
        name: str,
        request: MapRequest,
        scope: Scope,
        receive: Receive,
        send: Send,
        departure: Departure,
    ) -> ListAnswer | None:
        """A body that is run while it arrives."""
        feed = Feed("json")
        cluster = self._cluster(scope)
        run = await self._open(cluster, name, feed, request)
        body = LinesBody(receive, feed, departure, self._limits.on(cluster))
        try:
            return await self._answer(run, request, body, send, departure)
        finally:
            body.close()

    async def _open(self, cluster: Cluster, name: str, source: Source, request: MapRequest) -> Map:
        keywords = request.options.kwargs
        checked = check_kwargs(cluster, name, keywords)
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
        body: LinesBody | None,
        send: Send,
        departure: Departure,
    ) -> ListAnswer | None:
        """Streams the answer, or returns the list that is still to be sent."""
        source = request.format
        fail = request.fail
        if request.answer == "jsonl" or request.answer == "sse":
            style = Lines() if request.answer == "jsonl" else Events()
            stream = Stream(send, style, departure, self._limits, fail=fail, debug=self._debug)
            await stream.serve(run, source, body)
            return None
        answer = ListAnswer(request.answer, self._limits, collect=not fail, debug=self._debug)
        try:
            await answer.gather(run, source)
        except BaseException:
            answer.close()
            raise
        return answer
