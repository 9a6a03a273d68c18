"""``/jobs``: maps whose input and outcomes are durable.

Plain ASGI applications, as the maps: bodies and answers of any size pass through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.routing import BaseRoute, Route

from jetmap import bounds

from .admission import PASSING_BYTES, Admission
from .asgi import Receive, Scope, Send, respond
from .disconnect import Departure
from .heartbeats import Heartbeats
from .jobdocuments import (
    JSON,
    NO_STORE,
    accepted,
    answer_status,
    describe,
    job_path,
    link_to,
    next_link,
    retry_after,
    states_of,
)
from .jobstreams import EventId, check_kept, events, lines, packed, page, write
from .media import CONTENT_TYPES, answer_type
from .problems import Problem, answer_nobody, bad_parameter, end_cancelled, problem_of, refuse
from .request import number, parameters, read_job_request, whole_number
from .security import HEAD, header
from .uploads import begin, store

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster
    from jetmap.jobs.service import Jobs

LIST_LIMIT = 100
PAGE_LIMIT = 1000

Serve = Callable[[str, Scope, Receive, Send, Departure], Awaitable[None]]


class JobsEndpoints:
    """All of ``/jobs``. cluster: finds the cluster of a request."""

    def __init__(
        self, cluster: Callable[[Scope], Cluster], admission: Admission, debug: bool
    ) -> None:
        self._cluster = cluster
        self._admission = admission
        self._limits = admission.limits
        self._debug = debug
        self._heartbeats = Heartbeats()
        self.submit = Endpoint(self._submit, debug)

    def routes(self) -> list[BaseRoute]:
        """The status before the others, which are asked for less often."""
        debug = self._debug
        routes = [
            Route("/jobs/{name}", Endpoint(self._status, debug), methods=["GET"], name="job"),
            Route("/jobs/{name}", self.submit, methods=["POST"], name="submit"),
            Route("/jobs/{name}", Endpoint(self._delete, debug), methods=["DELETE"]),
            Route("/jobs/{name}/results", Endpoint(self._results, debug), methods=["GET"]),
            Route("/jobs/{name}/events", Endpoint(self._events, debug), methods=["GET"]),
            Route("/jobs/{name}/cancel", Endpoint(self._cancel, debug), methods=["POST"]),
            Route("/jobs", Endpoint(self._list, debug), methods=["GET"], name="jobs"),
        ]
        for route in routes:
            assert route.methods is not None
            route.methods.discard("HEAD")  # which is a GET by the time it comes here
        return [*routes]

    # Submitting and ending

    async def _submit(
        self, name: str, scope: Scope, receive: Receive, send: Send, departure: Departure
    ) -> None:
        """202 once the whole body is durable."""
        request = read_job_request(scope)
        cluster = self._cluster(scope)
        hold = self._admission.hold(cluster)
        try:
            hold.add(PASSING_BYTES)
            upload = await begin(cluster, name, request)
            limits = self._limits.fitting(cluster.max_item)
            record = await store(upload, request, receive, departure, limits)
        finally:
            hold.close()
        await accepted(send, scope, record)

    async def _cancel(
        self, id: str, scope: Scope, receive: Receive, send: Send, departure: Departure
    ) -> None:
        """Of a job that is over, nothing changes."""
        parameters(scope["query_string"], ())
        record = await self._jobs(scope).cancel(id)
        await answer_status(send, scope, record, 202)

    async def _delete(
        self, id: str, scope: Scope, receive: Receive, send: Send, departure: Departure
    ) -> None:
        """Cancels and removes it."""
        parameters(scope["query_string"], ())
        await self._jobs(scope).delete(id)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    # Looking

    async def _list(
        self, _: str, scope: Scope, receive: Receive, send: Send, departure: Departure
    ) -> None:
        """Newest first, page by page."""
        given = parameters(scope["query_string"], ("state", "function", "limit", "after"))
        limit = _number(given, "limit", LIST_LIMIT, bounds.PAGE_JOBS)
        states = states_of(given.get("state", ""))
        function, after = given.get("function") or None, given.get("after") or None
        try:
            records, after = await self._jobs(scope).list(
                states=states, function=function, limit=limit, after=after
            )
        except ValueError:
            detail = "after is where the page before ended: follow its next"
            raise bad_parameter("after", detail) from None
        headers = [NO_STORE]
        following: str | None = None
        if after is not None:
            following = link_to(job_path(scope), {**given, "after": after})
            headers.append(next_link(following))
        document = {"jobs": [describe(scope, record) for record in records], "next": following}
        await respond(send, 200, JSON, msgspec.json.encode(document), headers)

    async def _status(
        self, id: str, scope: Scope, receive: Receive, send: Send, departure: Departure
    ) -> None:
        parameters(scope["query_string"], ())
        await answer_status(send, scope, await self._jobs(scope).get(id))

    async def _results(
        self, id: str, scope: Scope, receive: Receive, send: Send, departure: Departure
    ) -> None:
        """A page, or the whole. start, limit: items; wait: seconds until something is there."""
        answer = answer_type(header(scope, b"accept"))
        if answer == "sse":
            raise Problem(406, "not-acceptable", "No such answer", "events are at …/events")
        known = ("start", "limit", "wait") if answer == "json" else ("start", "wait")
        given = parameters(scope["query_string"], known)
        start = _number(given, "start", 0, bounds.START)
        limit = _number(given, "limit", PAGE_LIMIT, bounds.PAGE_ITEMS)
        wait = number("wait", given["wait"], bounds.POLL) if "wait" in given else 0.0
        if HEAD in scope:
            wait = 0.0  # The headers are the same, whatever comes later.
        jobs = self._jobs(scope)
        record = await jobs.get(id)
        check_kept(record)
        departure.watch(receive)
        if answer == "jsonl":
            pieces = lines(jobs, record, start, wait, self._debug)
            await write(send, CONTENT_TYPES[answer], pieces)
        elif answer == "msgpack":
            hold = self._admission.hold(self._cluster(scope))
            try:
                pieces = packed(jobs, record, start, wait, self._limits, hold, self._debug)
                await write(send, CONTENT_TYPES[answer], pieces)
            finally:
                hold.close()
        else:
            found = await page(jobs, record, start, limit, wait, self._debug)
            headers = [NO_STORE]
            if found.next is not None:
                query = {**given, "start": str(found.next)}
                headers.append(next_link(link_to(job_path(scope, id, "/results"), query)))
                if found.next == start:
                    headers += retry_after(record)
            await respond(send, 200, JSON, found.body, headers)

    async def _events(
        self, id: str, scope: Scope, receive: Receive, send: Send, departure: Departure
    ) -> None:
        """The header Last-Event-ID, which a browser sends when it comes again, goes before the
        parameter; 204, behind the last event, tells it to stay away."""
        given = parameters(scope["query_string"], ("last_event_id",))
        text = header(scope, b"last-event-id")
        last = EventId.read(
            given.get("last_event_id", "") if text is None else text.decode("latin-1")
        )
        jobs = self._jobs(scope)
        if last.end:
            await send({"type": "http.response.start", "status": 204, "headers": [NO_STORE]})
            await send({"type": "http.response.body", "body": b""})
            return
        record = await jobs.get(id)
        check_kept(record)
        departure.watch(receive)
        pieces = events(jobs, record, last, self._debug)
        await write(send, CONTENT_TYPES["sse"], pieces, heartbeats=self._heartbeats)

    def _jobs(self, scope: Scope) -> Jobs:
        """Raises JobsUnavailable."""
        return self._cluster(scope).jobs


class Endpoint:
    """One of them as an ASGI application: refusals are problems, and who leaves ends it."""

    def __init__(self, endpoint: Serve, debug: bool) -> None:
        self._endpoint = endpoint
        self._debug = debug

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.serve(scope["path_params"].get("name", ""), scope, receive, send)

    async def serve(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        departure = Departure()
        started = False

        async def sending(message: Any) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            with departure:
                await self._endpoint(name, scope, receive, sending, departure)
        except asyncio.CancelledError:
            await end_cancelled(send, answering=started or departure.left)
        except Exception as exc:
            if started:  # The answer is cut off, which the client sees.
                raise
            if not departure.left:
                await refuse(send, problem_of(exc, self._debug))
        if departure.left and not started:
            await answer_nobody(send)


def _number(given: dict[str, str], name: str, default: int, bound: bounds.Whole) -> int:
    return whole_number(name, given[name], bound) if name in given else default
