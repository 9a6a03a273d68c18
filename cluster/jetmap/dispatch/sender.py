"""Send chunks: in the scheduler's order, small ones together, and again if the broker refuses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable

from jetmap.background import Background, started
from jetmap.nats.broker import Message
from jetmap.wire.messages import ChunkKey
from jetmap.wire.protocol import PARTS_PROTOCOL

from .flight import Flight
from .maps import OpenMaps
from .neighbours import NeighbourAgents
from .open_map import OpenMap
from .outbox import Accepted, Outbox, Unsendable
from .roster import Roster
from .scheduler import Scheduler
from .sharing import Sent, is_small
from .stats import Stats

REFUSED_SECONDS = 0.1  # Seconds before chunks that the broker refused are sent again.


class Sender:
    """Send what the scheduler chooses, and act on what the outbox returns."""

    def __init__(
        self,
        maps: OpenMaps,
        scheduler: Scheduler,
        outbox: Outbox,
        roster: Roster,
        stats: Stats,
        background: Background,
        neighbours: NeighbourAgents,
    ) -> None:
        self._maps = maps
        self._scheduler = scheduler
        self._sharing = scheduler.sharing
        self._outbox = outbox
        self._roster = roster
        self._stats = stats
        self._background = background
        self._neighbours = neighbours
        self._timer: asyncio.TimerHandle | None = None
        self._pumping = self._again = self._scheduled = self._gathering = self._closed = False

    def close(self) -> None:
        """Send no more chunks."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def pump_soon(self) -> None:
        """Send what may be sent, in a later turn of the event loop."""
        if not self._scheduled:
            self._scheduled = True
            self._background.spawn(self._pump_later(), "send")

    def pump_now(self) -> None:
        """Send what may be sent, at once; what has to wait for something goes on in a task."""
        if (rest := started(self.pump())) is not None:
            self._background.spawn(self._go_on(rest), "send")

    async def _go_on(self, rest: Awaitable[None]) -> None:
        await rest

    async def _pump_later(self) -> None:
        self._scheduled = False
        await self.pump()

    async def pump(self) -> None:
        """Send every chunk that may be sent now, and call back those of maps that ended early."""
        if self._maps.to_withdraw:
            self._withdraw()
        if self._maps.postponed:
            self._wait_for_tries()
        if self._pumping:
            self._again = True
            return
        self._pumping = True
        try:
            while True:
                self._again = False
                while await self._send_next():
                    pass
                if self._sharing.gathered or self._scheduler.has_waiting:
                    await self._share()
                if self._scheduler.hurried:
                    # The newcomer's chunks are there before the cores that they are for.
                    await self._hurry()
                if self._maps.to_withdraw:
                    self._withdraw()
                if not self._again:
                    return
        finally:
            self._pumping = False

    async def _send_next(self) -> bool:
        """Send the chunk whose turn it is; return whether another one may follow."""
        if self._closed:
            return False
        chosen = self._scheduler.next(self._roster.all_cores)
        if self._scheduler.emptied:
            for emptied in self._scheduler.emptied:
                self._maps.check_end(emptied)
            self._scheduler.emptied.clear()
        if chosen is None:
            return False
        run, piece = chosen
        if run not in self._maps:
            return True
        if piece.error is not None:
            self._maps.refuse(run, piece.error)
            return True
        offer = self._roster.offer(run.spec.function, run.spec.ref) or ""
        flight = run.ledger.send(piece, offer, time.monotonic())
        self._stats.chunks_sent += 1
        if run.source.error is not None:
            self._maps.check_end(run)
        if not offer:
            return True  # Recovery takes it back when an offer has come.
        if len(piece.items) > run.large and not self._place(run, flight):
            return True
        if is_small(run, piece):
            self._sharing.add(run, flight)
        elif (event := await self._outbox.publish([(run, flight)])) is not None:
            self._maps.fail(event.chunks, event.message)
        return True

    def _place(self, run: OpenMap, flight: Flight) -> bool:
        """Put items into shared memory if all agents that may take them can read it there.

        Return whether the chunk can travel.
        """
        self._neighbours.begin(self._roster.agents)
        if self._neighbours.are_all(self._roster.takers(flight.offer)):
            self._neighbours.put(flight)
            return True
        return len(flight.piece.items) <= run.inline or self._fits(run, flight)

    def _fits(self, run: OpenMap, flight: Flight) -> bool:
        """Send items in their message if an older agent may take them; fail them if they are
        too large for that."""
        oldest = self._roster.oldest(flight.offer)
        if oldest is None or oldest.protocol >= PARTS_PROTOCOL:
            return True
        size = len(flight.piece.items)
        if size <= run.room:
            flight.is_inline = True
            return True
        message = (
            f"the item takes {size:,} bytes; the agent on host {oldest.host} runs an older jetmap, "
            f"which takes at most {run.room:,}: upgrade jetmap there, or send less"
        )
        self._maps.fail([(run, flight)], message)
        return False

    async def _hurry(self) -> None:
        while self._scheduler.hurried:
            run, chunk = self._scheduler.hurried.pop()
            await self._outbox.hurry(run.id, chunk)

    def _withdraw(self) -> None:
        while self._maps.to_withdraw:
            withdrawing = self._outbox.withdraw(self._maps.to_withdraw.pop())
            self._background.spawn(withdrawing, "withdraw")

    def _wait_for_tries(self) -> None:
        """Set the timers of maps whose items wait for the time of their next try."""
        loop, now = asyncio.get_running_loop(), time.monotonic()
        while self._maps.postponed:
            run = self._maps.postponed.pop()
            if run.next_try is not None:
                run.next_try.cancel()
            if (at := run.ledger.next_try) is not None and run in self._maps:
                run.next_try = loop.call_later(max(0.0, at - now), self._on_next_try, run)

    def _on_next_try(self, run: OpenMap) -> None:
        self._maps.resume(run, time.monotonic())
        self._maps.postponed.append(run)  # For the next item.
        self.pump_soon()

    async def send_again(self, chunks: list[Sent]) -> None:
        """Publish chunks that are still out again, each as its next attempt."""
        now = time.monotonic()
        for _, flight in chunks:
            flight.attempt += 1
            flight.published = now
        self._fail_unsendable(await self._outbox.publish_again(chunks))

    def _fail_unsendable(self, events: list[Unsendable]) -> None:
        for event in events:
            self._maps.fail(event.chunks, event.message)

    # Sharing

    async def _share(self) -> None:
        """Send the small chunks.

        At once if there is one chunk of each open map; otherwise at the end of this turn of the
        event loop, with those that it adds.
        """
        gathered = len(self._sharing.gathered)
        if gathered and gathered == len(self._maps):
            await self._send_shared()
        elif gathered and not self._gathering:
            self._gathering = True
            self._background.spawn(self._send_shared(), "send shared")
        if self._scheduler.has_waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(
                self._scheduler.express_seconds, self._stop_waiting, self._sharing.landed
            )

    async def _send_shared(self) -> None:
        self._gathering = False
        for parcel in self._sharing.take(self._roster.all_cores):
            if (event := await self._outbox.publish(parcel)) is not None:
                self._maps.fail(event.chunks, event.message)

    def _stop_waiting(self, landed: int) -> None:
        """Let small maps wait no longer if no parcel has landed since ``landed`` had."""
        self._timer = None
        if self._scheduler.has_waiting:
            self._sharing.release(landed)
            self.pump_soon()

    # The broker's answers

    async def on_ack(self, message: Message) -> None:
        """Send chunks again soon that the broker refused, and keep fewer in its stream."""
        event = self._outbox.on_ack(message.subject, message.data)
        if isinstance(event, Accepted):
            for _, flight in self._maps.out(event.chunks):
                if flight.confirmed and flight.attempt > 1 and not event.had_them:
                    self._maps.lost.append(flight)
                flight.confirmed = True
            return
        self._scheduler.window.on_refused()
        self._background.spawn(self._send_refused(event.chunks), "send refused chunks")
        if event.stream_is_gone:
            for _, flight in self._maps.out(event.chunks[:1]):
                self._outbox.avoid(flight)
            self._background.spawn(self._outbox.renew_stream(), "renew the stream")

    async def _send_refused(self, chunks: list[ChunkKey]) -> None:
        await asyncio.sleep(REFUSED_SECONDS)
        again, now = self._maps.out(chunks), time.monotonic()
        for _, flight in again:
            flight.heard = flight.published = now
        self._stats.chunks_again["refused"] += len(again)
        self._fail_unsendable(await self._outbox.publish_again(again))
