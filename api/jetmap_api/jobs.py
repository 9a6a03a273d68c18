"""``/jobs``: maps whose input and outcomes are durable.

Submitting is a plain ASGI application, because its body may have any size. The other endpoints are
FastAPI's, which reads their parameters into models and describes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from fastapi import Depends, Header, Query, Request, Response
from pydantic.json_schema import SkipJsonSchema
from starlette.routing import BaseRoute, Route

from jetmap.errors import JetmapError, UnknownJob
from jetmap.jobs.record import Record, find_run

from . import asgi
from .admission import Admission
from .asgi import HEAD, Scope, header
from .documents import answer, done
from .heartbeats import Heartbeats
from .job_changes import REFUSALS as CHANGE_REFUSALS
from .job_changes import REQUEST_BODY, read_changes, wrong_changes
from .job_documents import (
    describe,
    job_path,
    link_to,
    next_link,
    retry_after,
    states_of,
    status_answer,
)
from .job_events import EventId, events, unknown_event
from .job_follower import check_kept, check_shown
from .job_results import failed_lines, lines, outcomes_page, packed
from .media import Answer, answer_type
from .models import (
    EventIdText,
    EventsParameters,
    Job,
    JobList,
    JobPage,
    LimitParameters,
    ListParameters,
    NoParameters,
    ResultsParameters,
)
from .openapi_parts import NOT_OVER, refusal_response, refusals
from .problems import bad_parameter, error_record
from .request import parameters, read_labels
from .streamed import EventStream, StreamedAnswer
from .uploads import Submissions
from .watched import WatchedRoute, watch

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster
    from jetmap.jobs.service import Jobs


RESULT_ANSWERS: tuple[Answer, ...] = ("json", "msgpack", "jsonl")


async def accepted_answer(request: Request) -> Answer:
    """Choose the media of the results, and check the parameters that these have.

    Raises Problem: 406, or 400.
    """
    accept = header(request.scope, b"accept")
    chosen = answer_type(accept, RESULT_ANSWERS, "; events are at …/events")
    if chosen != "json":
        # What comes whole has no limit; failures are those so far, and wait for no others.
        known = ("start", "wait", "run", "only")
        if request.query_params.get("only"):
            paged = ("limit",) if chosen == "msgpack" else ()
            known = ("start", *paged, "run", "only")
        parameters(request.scope["query_string"], known)
    return chosen


class JobsEndpoints:
    """The other endpoints of ``/jobs``."""

    def __init__(
        self, cluster: Callable[[Scope], Cluster], admission: Admission, debug: bool
    ) -> None:
        self._cluster = cluster
        self._admission = admission
        self._limits = admission.limits
        self._debug = debug
        self._heartbeats = Heartbeats()
        self.submit = Submissions(cluster, admission, debug)

    def routes(self) -> list[BaseRoute]:
        """Make the routes; the status, which is asked for most often, comes first."""
        submit = Route("/jobs/{function}", self.submit, methods=["POST"], include_in_schema=False)
        media = {"application/jsonl": {"type": "object"}, "application/msgpack": {"type": "object"}}
        return [
            job_route(
                "GET",
                "/jobs/{id}",
                self._status,
                "get_job",
                "Get a job's state and progress",
                response_model=Job,
                response_description="The job.",
                responses={200: {"headers": NOT_OVER}, **refusals(404, 501)},
            ),
            submit,
            job_route(
                "PATCH",
                "/jobs/{id}",
                self._change,
                "change_job",
                "Change limits and labels of a job, also while it runs",
                response_model=Job,
                response_description="The job.",
                responses={**CHANGE_REFUSALS, **refusals(404, 501)},
                openapi_extra=REQUEST_BODY,
            ),
            job_route(
                "DELETE",
                "/jobs/{id}",
                self._delete,
                "delete_job",
                "Cancel and remove a job",
                status_code=204,
                response_class=Response,
                response_description="Nothing of it stays.",
                responses=refusals(404, 501),
            ),
            job_route(
                "GET",
                "/jobs/{id}/results",
                self._results,
                "job_results",
                "Get values and errors in input order, by page or all, also while the job runs",
                response_model=JobPage,
                response_description="A page; or, as JSON lines or MessagePack, all that is there, "
                "with `next` if there will be more.",
                responses={
                    200: {"content": {name: {"schema": schema} for name, schema in media.items()}},
                    **refusals(404, 406, 410, 501),
                },
            ),
            job_route(
                "GET",
                "/jobs/{id}/events",
                self._events,
                "job_events",
                "Follow the results as server-sent events, from `Last-Event-ID` on",
                response_class=EventStream,
                response_description="`start`, `results`, and `done` or `failed`.",
                responses={
                    204: {"description": "Everything was read; do not connect again."},
                    **refusals(404, 406, 410, 501),
                },
            ),
            job_route(
                "POST",
                "/jobs/{id}/cancel",
                self._cancel,
                "cancel_job",
                "Cancel a job; one that is over stays as it is",
                status_code=202,
                response_model=Job,
                response_description="The job.",
                responses=refusals(404, 501),
            ),
            *(
                job_route(
                    "POST",
                    f"/jobs/{{id}}/{action}",
                    endpoint,
                    f"{action}_job",
                    summary,
                    status_code=202,
                    response_model=Job,
                    response_description="The job.",
                    responses=refusals(404, 501),
                )
                for action, endpoint, summary in (
                    ("pause", self._pause, "Send nothing more of a job until it is resumed"),
                    ("resume", self._resume, "Let a paused job go on"),
                    ("limit", self._limit, "Limit the cores of a job, also while it runs"),
                )
            ),
            job_route(
                "POST",
                "/jobs/{id}/retry",
                self._retry,
                "retry_job",
                "Run the failed items again, and those without an outcome, as the next run",
                status_code=202,
                response_model=Job,
                response_description="The job, in its next run. All other items keep their "
                "outcomes.",
                responses={
                    409: refusal_response(
                        "It is not over, has no failed items, or has no input any more."
                    ),
                    **refusals(404, 410, 501),
                },
            ),
            job_route(
                "GET",
                "/jobs",
                self._list,
                "list_jobs",
                "List the jobs, newest first",
                response_model=JobList,
                response_description="A page.",
                responses=refusals(501),
            ),
        ]

    async def _status(
        self, id: str, request: Request, query: Annotated[NoParameters, Query()]
    ) -> Response:
        return status_answer(request.scope, await self._jobs(request).get(id))

    async def _cancel(
        self, id: str, request: Request, query: Annotated[NoParameters, Query()]
    ) -> Response:
        return status_answer(request.scope, await self._jobs(request).cancel(id), 202)

    async def _pause(
        self, id: str, request: Request, query: Annotated[NoParameters, Query()]
    ) -> Response:
        record = await self._jobs(request).steer(id, paused=True)
        return status_answer(request.scope, record, 202)

    async def _resume(
        self, id: str, request: Request, query: Annotated[NoParameters, Query()]
    ) -> Response:
        record = await self._jobs(request).steer(id, paused=False)
        return status_answer(request.scope, record, 202)

    async def _limit(
        self, id: str, request: Request, query: Annotated[LimitParameters, Query()]
    ) -> Response:
        record = await self._jobs(request).steer(id, max_parallel=query.max_parallel or None)
        return status_answer(request.scope, record, 202)

    async def _change(
        self, id: str, request: Request, query: Annotated[NoParameters, Query()]
    ) -> Response:
        changes = await read_changes(request)
        try:
            record = await self._jobs(request).update(id, changes)
        except JetmapError:
            raise
        except (TypeError, ValueError) as exc:
            raise wrong_changes(str(exc)) from None
        return status_answer(request.scope, record)

    async def _retry(
        self, id: str, request: Request, query: Annotated[NoParameters, Query()]
    ) -> Response:
        return status_answer(request.scope, await self._jobs(request).retry(id), 202)

    async def _delete(
        self, id: str, request: Request, query: Annotated[NoParameters, Query()]
    ) -> Response:
        await self._jobs(request).delete(id)
        return Response(status_code=204)

    async def _list(self, request: Request, query: Annotated[ListParameters, Query()]) -> Response:
        states = states_of(query.state or "")
        labels = read_labels(query.labels or "")
        try:
            records, after = await self._jobs(request).list(
                states=states,
                function=query.function or None,
                limit=query.limit,
                after=query.after or None,
                labels=labels,
            )
        except ValueError:
            detail = "after is where the page before ended: follow its next"
            raise bad_parameter("after", detail) from None
        headers: list[asgi.Header] = []
        following: str | None = None
        if after is not None:
            given = {**request.query_params, "after": after}
            following = link_to(job_path(request.scope), given)
            headers.append(next_link(following))
        jobs = [describe(request.scope, record) for record in records]
        return answer(JobList(jobs=jobs, next=following), headers=headers)

    async def _results(
        self,
        id: str,
        request: Request,
        media: Annotated[Answer, Depends(accepted_answer)],
        query: Annotated[ResultsParameters, Query()],
    ) -> Response:
        # To HEAD, the headers are the same whatever comes later.
        start, wait = query.start, 0.0 if HEAD in request.scope else query.wait
        jobs = self._jobs(request)
        record = find_run(await jobs.get(id), query.run)
        check_kept(record)
        watch(request)
        if query.only:
            if query.only != "failed":
                raise bad_parameter("only", "only is failed, or left out")
            return await self._failures(request, media, record, query)
        check_shown(record)
        if media == "jsonl":
            return StreamedAnswer(media, lines(jobs, record, start, wait, self._debug))
        if media == "msgpack":
            reservation = self._admission.reserve(self._cluster(request.scope))
            pieces = packed(jobs, record, start, wait, self._limits, reservation, self._debug)
            return StreamedAnswer(media, pieces, reservation=reservation)
        found = await outcomes_page(jobs, record, start, query.limit, wait, self._debug)
        headers = _next_page(request, record, found.next)
        if found.next == start:
            headers += retry_after(record)
        return answer(found.body, headers=headers)

    async def _failures(
        self, request: Request, media: Answer, record: Record, query: ResultsParameters
    ) -> Response:
        """Answer with the errors of the failed items alone: by page, or as JSON lines all."""
        outcomes = self._jobs(request).outcomes(record)
        if media == "jsonl":
            return StreamedAnswer(media, failed_lines(outcomes, query.start, self._debug))
        found, following = await outcomes.failures(query.start, query.limit)
        errors = [error_record(error, self._debug) for error in found]
        document = {"start": query.start, "values": [], "errors": errors, "next": following}
        if record.run > 1:
            document["run"] = record.run
        headers = _next_page(request, record, following)
        if media == "msgpack":
            body = msgspec.msgpack.encode(document)
            return Response(
                body, headers={"cache-control": "no-store"}, media_type="application/msgpack"
            )
        return answer(msgspec.json.encode(document), headers=headers)

    async def _events(
        self,
        id: str,
        request: Request,
        query: Annotated[EventsParameters, Query()],
        last_event_id: Annotated[
            EventIdText | SkipJsonSchema[None], Header(alias="Last-Event-ID")
        ] = None,
    ) -> Response:
        # A browser that comes again sends the header; the address keeps its old parameter.
        text = query.last_event_id if last_event_id is None else last_event_id
        last = EventId.read(text or "")
        jobs = self._jobs(request)
        if last.end and await self._has_ended(id, jobs, last):
            return done()  # 204 tells a browser to stay away.
        record = find_run(await jobs.get(id), last.run or query.run)
        check_shown(record)
        if last.end or not await jobs.outcomes(record).has_place(last.seq):
            raise unknown_event(text or "")
        watch(request)
        pieces = events(jobs, record, last, self._debug)
        return StreamedAnswer("sse", pieces, heartbeats=self._heartbeats)

    async def _has_ended(self, id: str, jobs: Jobs, last: EventId) -> bool:
        """Return whether a reader can have had a job's last event."""
        try:
            return find_run(await jobs.get(id), last.run).is_over
        except UnknownJob:
            return True  # It was deleted since.

    def _jobs(self, request: Request) -> Jobs:
        """Find the jobs of a request. Raises JobsUnavailable."""
        return self._cluster(request.scope).jobs


def job_route(
    method: str, path: str, endpoint: Callable[..., Any], id: str, summary: str, **more: Any
) -> WatchedRoute:
    """Make a route whose description is complete."""
    return WatchedRoute(
        path, endpoint, methods=[method], operation_id=id, summary=summary, tags=["jobs"], **more
    )


def _next_page(request: Request, record: Record, following: int | None) -> list[asgi.Header]:
    """Link to the next page, of the same run."""
    if following is None:
        return []
    given = {**request.query_params, "start": str(following)}
    if record.run > 1:
        given["run"] = str(record.run)
    return [next_link(link_to(job_path(request.scope, record.id, "/results"), given))]
