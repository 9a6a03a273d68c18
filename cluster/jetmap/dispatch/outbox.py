"""Puts chunks on the work stream, hears what became of that, and takes them back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from nats.aio.msg import Msg

from jetmap import subjects
from jetmap.broker import topology
from jetmap.broker.connection import Connection
from jetmap.errors import JetmapError
from jetmap.messages import Chunk, Confirmation, Withdraw, encode

from .ledger import Flight
from .mapstate import MapState
from .options import DispatchOptions

logger = logging.getLogger(__name__)

CONFIRM_BATCH = 64
CONFIRM_SECONDS = 0.05  # Nothing waits for a confirmation, so several go in one message.

SETTLE_SECONDS = 0.02
WORD_SECONDS = 2.0

Spawn = Callable[..., Any]


class Outbox:
    """What a dispatcher sends. refused: called with a chunk that the broker did not take."""

    def __init__(
        self,
        connection: Connection,
        options: DispatchOptions,
        inbox: str,
        *,
        refused: Callable[[MapState, Flight], None],
        spawn: Spawn,
    ) -> None:
        self._connection = connection
        self._options = options
        self._inbox = inbox
        self._refused = refused
        self._spawn = spawn
        self._unstored: dict[tuple[str, int], tuple[MapState, Flight]] = {}
        self._tokens: dict[str, list[int]] = {}
        self._confirming: asyncio.TimerHandle | None = None
        self._renewing = False
        self._word = asyncio.Event()

    async def publish(self, parcel: list[tuple[MapState, Flight]]) -> None:
        """Sends chunks in one message; the broker's word on it comes later.

        The first try on the express lane asks for no word: the result itself comes as soon, and
        the word would cost more than the computation. If it is lost, the next try asks.
        """
        state, first = parcel[0]
        if not first.subject:
            # A message that several maps share must not be purged with one of them.
            shared = state.id if len(parcel) == 1 else subjects.new_id()
            pool = self._options.pool
            subject = subjects.work(pool, first.offer, first.lane, shared, first.number)
            for _, flight in parcel:
                flight.subject = subject
        reply = ""
        if first.lane == "main" or first.attempt > 1:
            reply = f"{self._inbox}.ack.{state.id}.{first.number}"
            self._unstored[state.id, first.number] = state, first
        chunks = [self._chunk(state, flight) for state, flight in parcel]
        try:
            await self._connection.publish(first.subject, encode(chunks), reply)
        except JetmapError as error:
            # Not connected, and the buffer is full: the tick sends it again.
            logger.debug("%s not sent: %s", first.subject, error)

    def _chunk(self, state: MapState, flight: Flight) -> Chunk:
        piece = flight.piece
        return Chunk(
            map=state.id,
            number=flight.number,
            attempt=flight.attempt,
            function=state.function,
            format=state.format,
            start=piece.start,
            count=piece.count,
            inbox=self._inbox,
            timeout=state.timeout,
            budget=self._options.cutting.budget(flight.seconds),
            items=piece.items,
            kwargs=state.kwargs,
            ref=state.ref,
        )

    async def on_published(self, message: Msg) -> None:
        """The broker's word on a chunk."""
        _, map, number = message.subject.rsplit(".", 2)
        known = self._unstored.pop((map, int(number)), None)
        self._word.set()
        if known is None:
            return
        # Refused because it is in the stream already, it is where we want it.
        if message.data and (b'"error"' not in message.data or b"per subject" in message.data):
            return
        self._refused(*known)
        if not message.data and not self._renewing:
            self._renewing = True
            self._spawn(self.renew_stream())

    async def renew_stream(self) -> None:
        """Makes the work stream if it is gone."""
        try:
            await topology.ensure_stream(self._connection, self._options.pool, self._options.stream)
        except JetmapError as error:
            logger.debug("the work stream is not there yet: %s", error)
        finally:
            self._renewing = False

    def forget(self, state: MapState) -> None:
        """The map is over; nobody waits for the broker's word on its chunks."""
        for number in state.ledger.flights:
            self._unstored.pop((state.id, number), None)

    def landed(self, state: MapState, flight: Flight) -> None:
        """The chunk's result is here, so it was stored, whatever became of the word of it."""
        self._unstored.pop((state.id, flight.number), None)

    async def withdraw(self, state: MapState) -> None:
        """Takes back what is out of a map: stops its workers, then empties its queue.

        The queue is purged once more when the broker's word on each chunk is in, and a moment
        later for those that asked for none: it may have taken the purge before the last of them.
        """
        pool = self._options.pool
        waiting = subjects.map_work(pool, state.id)
        try:
            await self._connection.publish(subjects.control(pool), encode(Withdraw(state.id)))
            await topology.purge(self._connection, pool, waiting)
            await asyncio.sleep(SETTLE_SECONDS)
            await self._until_stored(state)
            await topology.purge(self._connection, pool, waiting)
        except JetmapError as error:
            # Claims find out what is no longer wanted, when the broker is back.
            logger.debug("map %s could not be called back: %s", state.id, error)
        finally:
            self.forget(state)

    async def recall(self, map: str) -> None:
        """Stops the workers of a map that another dispatcher ran, and empties its queue."""
        pool = self._options.pool
        try:
            await self._connection.publish(subjects.control(pool), encode(Withdraw(map)))
            await topology.purge(self._connection, pool, subjects.map_work(pool, map))
        except JetmapError as error:
            # Nobody answers the claims of what is left, and the agents drop it.
            logger.debug("map %s could not be called back: %s", map, error)

    async def take_back(self, flight: Flight) -> None:
        """Removes a chunk that nobody has taken, with those that share its message."""
        try:
            await topology.purge(self._connection, self._options.pool, flight.subject)
        except JetmapError as error:
            logger.debug("not purged: %s", error)

    async def confirm(self, inbox: str, token: int) -> None:
        """The agent of this inbox may let that delivery go. Sent soon, with others."""
        tokens = self._tokens.setdefault(inbox, [])
        tokens.append(token)
        if len(tokens) >= CONFIRM_BATCH:
            await self.confirm_now()
        elif self._confirming is None:
            loop = asyncio.get_running_loop()
            self._confirming = loop.call_later(CONFIRM_SECONDS, self._confirm_soon)

    async def confirm_now(self) -> None:
        tokens, self._tokens = self._tokens, {}
        for inbox, confirmed in tokens.items():
            try:
                await self._connection.publish(inbox, encode(Confirmation(confirmed)))
            except JetmapError as error:
                logger.debug("not confirmed, the agent will ask again: %s", error)

    def close(self) -> None:
        if self._confirming is not None:
            self._confirming.cancel()

    def _confirm_soon(self) -> None:
        self._confirming = None
        self._spawn(self.confirm_now(), "confirm")

    async def _until_stored(self, state: MapState) -> None:
        """Waits, not for ever, for the broker's word on each chunk of a map."""
        try:
            async with asyncio.timeout(WORD_SECONDS):
                while self._has_unstored(state):
                    self._word.clear()
                    await self._word.wait()
        except TimeoutError:
            logger.debug("map %s: the broker said nothing of some chunks", state.id)

    def _has_unstored(self, state: MapState) -> bool:
        return any((state.id, number) in self._unstored for number in state.ledger.flights)
