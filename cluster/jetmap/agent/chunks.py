"""The way of chunks through an agent: from the broker to a worker, and their results back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from jetmap.background import Background
from jetmap.errors import JetmapError
from jetmap.nats.broker import Broker, Message, Subscription
from jetmap.wire import subjects
from jetmap.wire.constants import found_in
from jetmap.wire.messages import (
    EMPTY_BYTES,
    AgentMail,
    ArrivedHead,
    Chunk,
    ChunkKey,
    ClaimAnswer,
    Crash,
    Final,
    Hurry,
    ReportCounts,
    Rest,
)

from .announcements import Announcements
from .batches import Gathering
from .batching import WaitingBatches, shares_of
from .claims import Claims
from .constants import HostConstants
from .fetching import Fetching
from .holdings import HeldChunk, Holdings, Lease
from .intake import NAK, Delivered, Intake
from .large_values import OPEN_BYTES, LargeValues
from .neighbours import NeighbourDispatchers, Worker
from .options import AgentOptions
from .parts import Transfers
from .prefetch import Prefetch
from .prefetching import Prefetching
from .reports import ENVELOPE_BYTES, Reports, too_large, without_values
from .slot import Slot
from .stored_reports import StoredReports
from .withdrawals import TERM, Withdrawals
from .worker_queue import Lost

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 3.0  # Seconds a draining agent waits for confirmations.
ACK, IN_PROGRESS = b"+ACK", b"+WPI"

_parcel = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_head = msgspec.msgpack.Decoder(ArrivedHead).decode
_chunk = msgspec.msgpack.Decoder(Chunk).decode
_counts = msgspec.msgpack.Decoder(ReportCounts).decode
_mail = msgspec.msgpack.Decoder(AgentMail).decode


class Chunks:
    """The chunks of one agent. Its slots report to it, from their own tasks.

    Args:
        slots: The cores, which the caller may still add.
        renew: Creates the stream and the consumers if they are missing, and calls ``serve``.
    """

    def __init__(
        self,
        connection: Broker,
        options: AgentOptions,
        agent: str,
        slots: Sequence[Slot],
        state: Announcements,
        renew: Callable[[], Awaitable[None]],
        neighbours: NeighbourDispatchers,
    ) -> None:
        self._connection = connection
        self._slots = slots
        self._state = state
        inbox = connection.inbox(agent)
        self._mail = mail = f"{inbox}.mail"
        self._held = held = Holdings()
        self._released = asyncio.Event()
        self._background = background = Background("agent's chunks")
        self._subscription: Subscription | None = None
        self.intake = intake = Intake(
            *(connection, options.pool, f"{inbox}.pull", self._on_delivered, renew),
            local=options.local,
            takes_all=options.ahead,
        )
        self._reports = Reports(held, agent, mail, self._send, lambda: connection.room)
        self._stored = StoredReports(connection, options.pool, inbox, self._reports)
        self._claims = Claims(held, agent, options.host, mail, self._send)
        self._parts = parts = Transfers(connection, agent, inbox)
        self._constants = HostConstants(connection, options.host, inbox, parts)
        # Beside the path:
        gathering: Gathering[HeldChunk] = Gathering()
        grace = options.settings.chunks.withdraw_grace
        self.withdrawals = withdrawals = Withdrawals(
            *(held, slots, self._claims, parts, gathering, self._send, grace, self._released)
        )
        self.prefetch: Prefetch[Slot, list[HeldChunk]] = Prefetch(is_standing=options.ahead)
        self.prefetching = Prefetching(self.prefetch, connection, intake, background, withdrawals)
        self._fetching = Fetching(parts, self._constants, neighbours, withdrawals)
        self._values = LargeValues(
            *(connection, intake, self._reports, self._stored, parts, withdrawals, background)
        )
        self._batching = WaitingBatches(
            *(slots, background, gathering, intake, self._fetching, self.prefetching),
            *(self._give_back, self._values.on_core_lost),
        )

    async def start(self) -> None:
        self._subscription = await self._connection.subscribe(
            self._mail, self._on_mail, direct=True
        )
        await self.intake.start()
        await self._stored.start()
        await self._parts.start()

    async def drain(self, grace: float) -> None:
        """Take no more chunks; finish or hand back those held within ``grace`` seconds."""
        await self._take_no_more()
        for slot in self._slots:
            slot.drain(grace)
        deadline = time.monotonic() + grace + FLUSH_SECONDS
        while len(self._held):
            if not any(slot.held for slot in self._slots) and self._parts.is_idle:
                # Only confirmations are missing: a dispatcher that lives sends them now.
                if not self._connection.connected:
                    return
                deadline = min(deadline, time.monotonic() + FLUSH_SECONDS)
            self._released.clear()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._released.wait()
            except TimeoutError:
                return

    async def stop(self) -> None:
        """Take no more chunks, and ask about none."""
        await self._take_no_more()
        await self._background.close()

    async def _take_no_more(self) -> None:
        await self.intake.stop()
        await self.prefetching.clear()
        await self._batching.clear()

    async def close(self) -> None:
        if self._subscription is not None:
            await self._subscription.unsubscribe()
        await self.intake.close()
        await self._stored.close()
        await self._constants.close()
        await self._parts.close()

    # From the broker to a worker

    async def on_core_freed(self, slot: Slot) -> None:
        try:
            if self._batching.is_used and self._batching.has_ready:
                await self._batching.on_core_freed()
                return
            if self.prefetch.is_standing:
                while slot.is_idle and (next_ones := self.prefetch.take()) is not None:
                    await self._start(next_ones)
            elif self.prefetch.ahead:
                waiting, is_to_pull = self.prefetch.on_freed(slot)
                if waiting is not None:
                    await self._start(waiting)
                if not is_to_pull:
                    return
            if self._values.open_bytes > OPEN_BYTES:
                self._values.hold_back()
                return
            await self.intake.on_core_freed()
        except JetmapError as error:  # The pulls are sent again when they seem lost.
            logger.debug("not pulled: %s", error)

    def on_core_lost(self, slot: Slot) -> None:
        self._values.on_core_lost()

    async def _on_delivered(self, delivered: Delivered) -> None:
        """Process a message for an idle core: one chunk, or several small ones."""
        parcel = _parcel(delivered.data)
        lease = Lease(delivered.ack, len(parcel), delivered.deliveries)
        now = time.monotonic()
        fresh, is_again = [], delivered.deliveries > 1
        for raw in parcel:
            data = bytes(raw)
            head = _head(data)
            if head.map in self.withdrawals.maps or self._held.is_gone(head.inbox):
                # The chunk was on its way when its map was withdrawn, or its caller went.
                if lease.release():
                    await self._send(lease.ack, TERM)
                continue
            sink = self._reports if subjects.job_of(head.map) is None else self._stored
            held = HeldChunk(head, [lease], data, delivered.pending, head.start, sink)
            if head.is_elsewhere:
                held.at = _chunk(data).at
            if len(head.kwargs) > EMPTY_BYTES:
                held.constants = found_in(head.kwargs)
                self._constants.need(held)
            if head.batch is not None:
                held.batch, held.shares = head.batch, shares_of(head)
            if self._held.add(held, now):
                fresh.append(held)
                is_again = is_again or head.attempt > 1
        if not fresh:
            await self.intake.on_core_freed()
        elif is_again:
            self._background.spawn(self._start_wanted(fresh), "claim")
        else:
            await self._start(fresh)

    async def _start_wanted(self, fresh: list[HeldChunk]) -> None:
        """Claim chunks that another agent had before, and start those that are not done already."""
        answers = await self._claims.ask(fresh, self._in_progress())
        for held in fresh:
            if answers[held.key] is None:
                # Its dispatcher is gone, or out of reach: in that case it sends the chunk again.
                await self.withdrawals.release(held, TERM)
        await self._start([held for held in fresh if answers[held.key]])

    async def _start(self, fresh: list[HeldChunk]) -> None:
        """Give chunks to an idle worker, but not those withdrawn since they arrived."""
        fresh = [held for held in fresh if not held.unwanted]
        if any([held.at or held.constants for held in fresh]) and any(
            map(self._fetching.is_needed, fresh)
        ):
            self._background.spawn(self._start_fetched(fresh), "fetch items")
            return
        slot = next((slot for slot in self._slots if slot.is_idle), None)
        if fresh and slot is not None and not self.intake.stopped:
            if fresh[0].batch is not None:
                await self._batching.add(fresh)
                return
            if not self._batching.is_used or self._batching.leaves_a_core:
                slot.assign(fresh)
                if self.prefetch.round_trip and not self.prefetch.is_standing:
                    self.prefetching.on_assigned(slot, fresh)
                return
            await self._batching.make_way()
        if fresh and self.prefetch.is_ahead and not self.intake.stopped:
            self.prefetching.wait(fresh)
            return
        # The idle worker died between the pull and the delivery, or the core is free again.
        for held in fresh:
            await self.withdrawals.release(held, NAK)
        await self.intake.on_core_freed()

    async def _start_fetched(self, fresh: list[HeldChunk]) -> None:
        """Start chunks once the items and constants that did not come with them are here."""
        await self._fetching.fetch(fresh)
        await self._start(await self._fetching.pass_on(fresh))

    async def _give_back(self, chunks: list[HeldChunk]) -> None:
        """Let chunks run elsewhere that were not begun here."""
        for held in chunks:
            await self.on_chunk_ended(held, None)
        await self.flush()

    async def on_batch_lost(self, lost: Lost) -> None:
        """Go on with a batch whose worker died: with the halves of its call, if that had several
        items.
        """
        if lost.halved is not None:
            held, crash = lost.halved
            self._state.on_batch_crash(held.head, crash, lost.items)
        for batch in lost.again:
            for held in batch.drop_unwanted():
                await self.withdrawals.release(held, TERM)
        self._batching.compute_again(lost.again)

    def give_constants(self, worker: Worker, held: HeldChunk) -> None:
        """Give a worker the constants of its next chunk."""
        self._constants.give(worker, held)

    # From a worker to the dispatcher

    async def on_report(
        self, held: HeldChunk, report: bytes, last: bool, values: bytes = b""
    ) -> None:
        """Send outcomes on their way.

        Args:
            last: Whether the chunk has ended.
            values: Its values, if they are large and not in the report.
        """
        if held.unwanted:
            if last:
                await self.withdrawals.release(held, TERM)
            elif self._batching.is_used:
                head = _counts(report)
                held.end = head.start + head.count  # What its batch goes on behind.
            return
        if len(report) > (limit := self._connection.max_payload - ENVELOPE_BYTES):
            report, values = without_values(report)
            if len(report) > limit:
                report, values = too_large(report, limit), b""
        head = _counts(report)
        kinds = [error.kind for error in head.errors] if head.errors else ()
        self._state.counts.outcomes(held.head.function, head.count, kinds, head.seconds)
        held.end = head.start + head.count
        held.finished = last
        if last and held.begun:
            seconds = time.monotonic() - held.begun
            self.prefetch.on_computed(held.head.function, held.end - held.head.start, seconds)
        self._released.set()
        if values:
            self._values.add(held, head, report, values)
            return
        # A report without outcomes or tries leaves nothing to store.
        is_news = head.count or head.errors
        await (held.sink if is_news else self._reports).add(held, report)

    async def on_delivered_past(self, held: HeldChunk) -> None:
        """Release a chunk that has ended and whose worker has sent the last report itself.

        Earlier reports may have come this way, and still wait for their confirmation.
        """
        if held.unwanted:
            await self.withdrawals.release(held, TERM)
            return
        held.finished = True
        self._released.set()
        if held.is_done:
            await self.withdrawals.release(held, ACK)

    async def on_rest(self, held: HeldChunk, rest: Rest) -> None:
        """Report that a chunk goes on with the item in progress only; ``rest`` runs elsewhere."""
        await self._reports.add_empty(held, rest.start, rest=rest)
        await self.flush()

    async def on_chunk_ended(self, held: HeldChunk, crash: Crash | None) -> None:
        """Report the end of a chunk without a result: its missing items run elsewhere.

        crash: how its worker died; None if the worker has not begun it, or if what it gave is lost
        and no item is to blame.
        """
        if held.unwanted:
            await self.withdrawals.release(held, TERM)
            return
        if crash is not None and crash.reason != "stopped":
            self._state.on_crash(held.head, crash)
        held.finished = True
        self._released.set()
        await self._reports.add_empty(held, held.end, final=Final(held.end, crash))

    async def flush(self) -> None:
        await self._reports.flush()

    # What dispatchers want

    async def _on_mail(self, message: Message) -> None:
        mail = _mail(message.data)
        if isinstance(mail, ClaimAnswer):
            await self.withdrawals.on_claim_answer(mail)
            return
        for held in self._held.confirm(mail.tokens):
            self._held.on_answer(held.head.inbox, time.monotonic())
            self._released.set()
            for ack in held.release():
                await self._send(ack, ACK)

    # Periodic steps

    async def beat(self) -> None:
        """Send claims and unconfirmed reports, every two seconds."""
        now = time.monotonic()
        if self._held:
            await self.claim()
        await self._reports.send_overdue(now)
        await self._constants.beat(now)

    def has_unstored(self) -> bool:
        """Return whether outcomes of jobs are on their way to the store."""
        return self._stored.has_unstored

    async def store_overdue(self) -> None:
        """Store again, every beat, what the broker did not take; this may wait for its answer."""
        await self._stored.store_overdue(time.monotonic())

    def hurry(self, request: Hurry) -> None:
        """End long chunks of a map early."""
        for slot in self._slots:
            slot.hurry(request)

    async def claim(self) -> None:
        """Claim all chunks that are held."""
        await self._claims.send(self._in_progress())

    def _in_progress(self) -> dict[ChunkKey, int | None]:
        """Return the item in progress of each chunk that is being computed."""
        return {slot.held.key: slot.item for slot in self._slots if slot.held is not None}

    async def renew_leases(self) -> None:
        for ack in self._held.leases():
            await self._send(ack, IN_PROGRESS)

    def needs_checks(self) -> bool:
        """Return whether to look for lost callers or pulls more often than with each beat.

        Of several servers, one that is killed takes the pulls with it.
        """
        return bool(self._held) or self._batching.is_used or self._connection.clustered

    async def check(self) -> None:
        """Look, once a second, for lost pulls and lost callers."""
        now = time.monotonic()
        for held in self._held.take_abandoned(now):
            logger.warning("map %s: its caller is gone; its chunk is dropped", held.head.map)
            await self.withdrawals.withdraw(held)
        for slot in self._slots:
            slot.rest()
        if self._batching.is_used:
            await self._batching.check()
        await self.intake.check(now)

    # The connection

    async def on_lost(self) -> None:
        """Wake a drain: nothing can be confirmed now."""
        self._released.set()

    async def on_reconnect(self) -> None:
        await self.intake.on_reconnect()
        await self.claim()

    async def _send(self, subject: str, payload: bytes) -> None:
        """Publish, or give up: everything that matters is sent again by a later beat."""
        try:
            await self._connection.publish(subject, payload)
        except JetmapError as error:
            logger.debug("could not publish to %s: %s", subject, error)
