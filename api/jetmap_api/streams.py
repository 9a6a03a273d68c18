"""Stream answers: JSON lines and server-sent events, written while outcomes come in."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Protocol

import msgspec

from jetmap.settings import LimitSettings
from jetmap.wire.arrays import split
from jetmap.wire.messages import Format

from .admission import Reservation
from .answers import Map, first_of
from .asgi import Header, Send
from .disconnect import DisconnectWatcher
from .media import CONTENT_TYPES, Answer
from .outcomes import Outcomes, translate
from .problems import STOPPING, Problem, error_record, item_problem, problem_of
from .spool import SpooledPipe

logger = logging.getLogger(__name__)

# Seconds of silence before a comment is sent.
HEARTBEAT = 15.0
STREAM_HEADERS: tuple[Header, ...] = (
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)

_json = msgspec.json.Encoder().encode


class ArrivingBody(Protocol):
    """A body that may still arrive."""

    complete: bool
    arrived: asyncio.Event

    def discard(self) -> None: ...


class Lines:
    """JSON lines: one for each item, and exactly one last line."""

    answer: Answer = "jsonl"

    def start(self, run: Map) -> bytes:
        return b""

    def outcomes(self, outcomes: Outcomes, records: list[dict[str, Any]]) -> bytes:
        values = enumerate(split(outcomes.values, "json"), outcomes.start)
        if not records:
            return b"".join([b'{"index":%d,"value":%b}\n' % pair for pair in values])
        failed = {record["index"]: record for record in records}
        return b"".join(
            [
                b'{"index":%d,"error":%b}\n' % (index, _json(failed[index]))
                if index in failed
                else b'{"index":%d,"value":%b}\n' % (index, value)
                for index, value in values
            ]
        )

    def done(self, done: int, failed: int, seconds: float) -> bytes:
        return b'{"done":%d,"failed":%d}\n' % (done, failed)

    def problem(self, problem: Problem) -> bytes:
        return b'{"problem":%b}\n' % problem.encode()


class Events:
    """Server-sent events: start, results as chunks finish, and done or failed."""

    answer: Answer = "sse"

    def __init__(self) -> None:
        self._run: Map | None = None
        self._done = 0

    def start(self, run: Map) -> bytes:
        self._run = run
        return event("start", _json({"map": run.id, "total": run.total}))

    def outcomes(self, outcomes: Outcomes, records: list[dict[str, Any]]) -> bytes:
        assert self._run is not None
        self._done += outcomes.count
        return results_event(outcomes, records, self._done, self._run.total)

    def done(self, done: int, failed: int, seconds: float) -> bytes:
        return event("done", _json({"done": done, "failed": failed, "seconds": round(seconds, 6)}))

    def problem(self, problem: Problem) -> bytes:
        return event("failed", problem.encode())


class StreamAnswer:
    """One streamed answer, written while the map runs and perhaps while its body arrives.

    While the body arrives, output that the client does not read yet waits in an outbox; after that
    the map waits for the client.
    """

    def __init__(
        self,
        send: Send,
        style: Lines | Events,
        watcher: DisconnectWatcher,
        limits: LimitSettings,
        reservation: Reservation,
        *,
        fail: bool,
        after_body: bool,
        debug: bool,
    ) -> None:
        self._send = send
        self._style = style
        self._watcher = watcher
        self._fail = fail
        self._after_body = after_body
        self._debug = debug
        self._outbox = SpooledPipe(limits, reservation)
        self._started = False
        self._done = 0
        self._failed = 0

    async def serve(self, run: Map, source: Format, body: ArrivingBody | None) -> None:
        """Stream the map's outcomes.

        Raises an error that ends the map before the first byte; later errors go in band.
        """
        outbox = self._outbox
        arrived = body.arrived if body is not None and self._after_body else None
        writer = asyncio.create_task(self._write(arrived))
        begun = time.monotonic()
        try:
            try:
                await self._run(run, source, body)
                last = self._style.done(self._done, self._failed, time.monotonic() - begun)
            except Exception as exc:
                if not self._started:
                    raise
                last = self._style.problem(problem_of(exc, self._debug))
                if body is not None:
                    body.discard()
            # The last line may be the first: from now on no other answer can be given.
            self._started = self._watcher.answering = True
            outbox.end(last)
            await writer
        except asyncio.CancelledError:
            # The server stops, or the client has left. Every stream has a last line, unless a slow
            # reader would have to be waited for.
            if self._started and not writer.done():
                outbox.end(self._style.problem(STOPPING))
                await asyncio.wait({writer}, timeout=0.1)
            raise
        finally:
            writer.cancel()
            outbox.discard()
            await asyncio.wait({writer})

    async def _run(self, run: Map, source: Format, body: ArrivingBody | None) -> None:
        try:
            self._put(self._style.start(run))
            async for outcomes in run:
                if source != "json":
                    outcomes = translate(outcomes, source, "json")
                if outcomes.errors and self._fail:
                    raise item_problem(first_of(outcomes.errors), self._debug)
                records = [error_record(record, self._debug) for record in outcomes.errors]
                self._done += outcomes.count
                self._failed += len(records)
                self._put(self._style.outcomes(outcomes, records))
                if body is None or body.complete:
                    await self._outbox.room()
        finally:
            await run.aclose()

    def _put(self, data: bytes) -> None:
        if data:
            self._started = self._watcher.answering = True
            self._outbox.put(data)

    async def _write(self, arrived: asyncio.Event | None) -> None:
        """Send the outbox, and a comment if an event stream is silent for HEARTBEAT seconds.

        arrived: set once the body is there; nothing is sent before.
        """
        style = self._style
        try:
            data = await self._outbox.get()
            if arrived is not None:
                await arrived.wait()
            media = CONTENT_TYPES[style.answer]
            headers = [(b"content-type", media), *STREAM_HEADERS]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            while data is not None:
                await self._send({"type": "http.response.body", "body": data, "more_body": True})
                try:
                    async with asyncio.timeout(HEARTBEAT if style.answer == "sse" else None):
                        data = await self._outbox.get()
                except TimeoutError:
                    data = b": still running\n\n"
            await self._send({"type": "http.response.body", "body": b""})
        except OSError:  # Servers of ASGI 2.4 raise this when the client has left.
            self._watcher.leave()
        except Exception:
            logger.exception("an answer cannot be written")
            self._watcher.leave()


def results_event(
    outcomes: Outcomes, records: list[dict[str, Any]], done: int, total: int | None, id: bytes = b""
) -> bytes:
    """Make the event of some outcomes in JSON. done: items so far, with these."""
    values = outcomes.values
    if b"\n" in values or b"\r" in values:  # white space between tokens, nothing else
        values = values.replace(b"\n", b" ").replace(b"\r", b" ")
    data = b'{"start":%d,"values":%b,"errors":%b,"done":%d,"total":%b}'
    filled = data % (outcomes.start, values, _json(records), done, _json(total))
    return event("results", filled, id)


def event(name: str, data: bytes, id: bytes = b"") -> bytes:
    """Make a server-sent event. data: one line."""
    head = b"id: %b\n" % id if id else b""
    return head + b"event: %b\ndata: %b\n\n" % (name.encode(), data)
