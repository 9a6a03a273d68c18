"""Responses that are sent piece by piece, as they come."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

from fastapi import Response

from .admission import Reservation
from .asgi import Header, Receive, Scope, Send
from .heartbeats import Beat, Heartbeats
from .media import CONTENT_TYPES
from .streams import STREAM_HEADERS

logger = logging.getLogger(__name__)


class StreamedAnswer(Response):
    """Pieces that are sent as they come."""

    def __init__(
        self,
        media: str,
        pieces: AsyncGenerator[bytes, None],
        *,
        heartbeats: Heartbeats | None = None,
        reservation: Reservation | None = None,
    ) -> None:
        super().__init__()
        self._media = CONTENT_TYPES[media]
        self._pieces = pieces
        self._heartbeats = heartbeats
        self._reservation = reservation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await write(send, self._media, self._pieces, heartbeats=self._heartbeats)
        finally:
            if self._reservation is not None:
                self._reservation.close()


class EventStream(Response):
    """Names the media type of events in the OpenAPI document."""

    media_type = "text/event-stream"


async def write(
    send: Send,
    media: bytes,
    pieces: AsyncGenerator[bytes, None],
    *,
    heartbeats: Heartbeats | None = None,
) -> None:
    """Send a stream. heartbeats: sends comments while it is silent."""
    headers: list[Header] = [(b"content-type", media), *STREAM_HEADERS]
    beat: Beat | None = None
    started = False
    try:
        async for piece in pieces:
            if not started:
                started = True
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                if heartbeats is not None:
                    beat = heartbeats.add(send)
            if piece:
                message = {"type": "http.response.body", "body": piece, "more_body": True}
                await (beat.send(message) if beat is not None else send(message))
        if beat is not None:
            await beat.close()
        await send({"type": "http.response.body", "body": b""})
    except OSError as exc:  # Servers of ASGI 2.4 raise this when the client has left.
        if not started:
            raise
        logger.debug("an answer is not read to its end: %r", exc)
    finally:
        if beat is not None:
            await beat.cancel()
        await pieces.aclose()
