"""The way of chunks through an agent: from the broker to a worker, and their results back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import msgspec

from jetmap.background import Background
from jetmap.errors import JetmapError
from jetmap.nats.broker import Broker, Message, Subscription
from jetmap.wire import subjects
from jetmap.wire.constants import NO_KWARGS, found_in
from jetmap.wire.messages import (
    PARTS_PROTOCOL,
    AgentMail,
    ArrivedHead,
    Chunk,
    ChunkKey,
    ClaimAnswer,
    Crash,
    Final,
    Report,
    ReportCounts,
    ReportHead,
    Rest,
    encode,
)

from .announcements import Announcements
from .batches import ChunkBatch
from .batching import Batching, shares_of
from .claims import Claims
from .constants import Constants
from .holdings import HeldChunk, Holdings, Lease
from .intake import NAK, Delivered, Intake
from .neighbours import Neighbours, Worker
from .options import AgentOptions
from .parts import Parts
from .prefetch import FAR_SECONDS, PATIENCE, Prefetch
from .reports import Reports, too_large, without_values
from .slot import Slot
from .stored_reports import StoredReports
from .worker_queue import Lost

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 3.0  # Seconds a draining agent waits for confirmations.
WITHDRAWN_KEPT = 1000  # Withdrawn maps to remember.
PINGS = 5  # Round trips in one measurement; the shortest counts.
ENVELOPE_BYTES = 4096  # Bytes of a message around its reports.
# Bytes of large values on their way to dispatchers, above which cores wait for their next chunk.
OPEN_BYTES = 64 << 20
DELIVERIES = 5  # Deliveries of a chunk whose constants a host has no room for; then it fails.
# Asks the broker to deliver a chunk again half a second later.
LATER = b'-NAK {"delay": 500000000}'
ACK, TERM, IN_PROGRESS = b"+ACK", b"+TERM", b"+WPI"

_parcel = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_head = msgspec.msgpack.Decoder(ArrivedHead).decode
_chunk = msgspec.msgpack.Decoder(Chunk).decode
_report = msgspec.msgpack.Decoder(Report).decode
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
        neighbours: Neighbours,
    ) -> None:
        self._connection = connection
        self._grace = options.settings.chunks.withdraw_grace
        self._slots = slots
        self._state = state
        inbox = connection.inbox(agent)
        self._mail = f"{inbox}.mail"
        self._held = Holdings()
        self.intake = Intake(
            *(connection, options.pool, f"{inbox}.pull", self._on_delivered, renew),
            local=options.local,
        )
        self._reports = Reports(self._held, agent, self._mail, self._send, lambda: connection.room)
        self._stored = StoredReports(connection, options.pool, inbox, self._reports)
        self._claims = Claims(self._held, agent, options.host, self._mail, self._send)
        self.prefetch: Prefetch[Slot, list[HeldChunk]] = Prefetch()
        self._parts = Parts(connection, agent, inbox)
        self._neighbours = neighbours
        self._constants = Constants(connection, options.host, inbox, self._parts)
        self._open_bytes = 0  # Of large values that are on their way.
        self._held_back = 0  # Idle cores that wait for those.
        self._batching: Batching | None = None  # None until a function takes a list.
        self._withdrawn: dict[str, None] = {}
        self._released = asyncio.Event()
        self._background = Background("agent's chunks")
        self._subscription: Subscription | None = None

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
        for waiting in self.prefetch.clear():
            for held in waiting:
                await self._release(held, NAK)
        if self._batching is not None:
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
            if self._batching is not None and self._batching.has_ready:
                await self._batching.on_core_freed()
                return
            if self.prefetch.ahead:
                waiting, is_to_pull = self.prefetch.on_freed(slot)
                if waiting is not None:
                    await self._start(waiting)
                if not is_to_pull:
                    return
            if self._open_bytes > OPEN_BYTES:
                self._held_back += 1
                return
            await self.intake.on_core_freed()
        except JetmapError as error:  # The pulls are sent again when they seem lost.
            logger.debug("not pulled: %s", error)

    def on_core_lost(self, slot: Slot) -> None:
        if self._held_back:
            self._held_back -= 1
        else:
            self.intake.on_core_lost()

    async def _on_delivered(self, delivered: Delivered) -> None:
        """Take in a message for an idle core: one chunk, or several small ones."""
        parcel = _parcel(delivered.data)
        lease = Lease(delivered.ack, len(parcel), delivered.deliveries)
        now = time.monotonic()
        fresh, is_again = [], delivered.deliveries > 1
        for raw in parcel:
            data = bytes(raw)
            head = _head(data)
            if head.map in self._withdrawn or self._held.is_gone(head.inbox):
                # The chunk was on its way when its map was withdrawn, or its caller went.
                if lease.release():
                    await self._send(lease.ack, TERM)
                continue
            sink = self._reports if subjects.job_of(head.map) is None else self._stored
            held = HeldChunk(head, [lease], data, delivered.pending, head.start, sink)
            if head.is_elsewhere:
                held.at = _chunk(data).at
            if len(head.kwargs) > NO_KWARGS:
                held.constants = found_in(head.kwargs)
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
                await self._release(held, TERM)
        await self._start([held for held in fresh if answers[held.key]])

    async def _start(self, fresh: list[HeldChunk]) -> None:
        """Give chunks to an idle worker, but not those withdrawn since they arrived."""
        fresh = [held for held in fresh if not held.unwanted]
        if any([held.at or held.constants for held in fresh]) and any(
            map(self._is_to_fetch, fresh)
        ):
            self._background.spawn(self._start_fetched(fresh), "fetch items")
            return
        slot = next((slot for slot in self._slots if slot.is_idle), None)
        if fresh and slot is not None and not self.intake.stopped:
            if fresh[0].batch is not None:
                await self._gather().add(fresh)
                return
            if self._batching is None or self._batching.leaves_a_core:
                self._assign(slot, fresh)
                return
            await self._batching.make_way()
        if fresh and self.prefetch.is_ahead and not self.intake.stopped:
            self.prefetch.wait(fresh)
            self._later(PATIENCE * self.prefetch.round_trip, lambda: self._hand_back(fresh))
            return
        # The idle worker died between the pull and the delivery, or the core is free again.
        for held in fresh:
            await self._release(held, NAK)
        await self.intake.on_core_freed()

    def _assign(
        self, slot: Slot, chunks: list[HeldChunk], batch: ChunkBatch[HeldChunk] | None = None
    ) -> None:
        slot.assign(chunks, batch)
        if self.prefetch.round_trip:
            self._ask_ahead(slot, chunks)

    def _gather(self) -> Batching:
        if self._batching is None:
            self._batching = Batching(
                self._slots,
                self._background,
                self._begin_batch,
                self._give_back,
                self.intake.on_core_freed,
                self.on_core_lost,
            )
        return self._batching

    def _begin_batch(self, slot: Slot, batch: ChunkBatch[HeldChunk]) -> None:
        """Give a batch to a core; one chunk has a budget, as any other has, until it is split."""
        is_one = len(batch.chunks) == 1 and not batch.is_split
        self._assign(slot, batch.chunks, None if is_one else batch)

    async def _give_back(self, chunks: list[HeldChunk]) -> None:
        """Let chunks run elsewhere that were not begun here."""
        for held in chunks:
            await self.on_chunk_ended(held, None)
        await self.flush()

    async def on_batch_lost(self, lost: Lost) -> None:
        """Go on with a batch whose worker died: with the halves of its call, if that had several
        items.
        """
        again = lost.again
        if lost.halved is not None:
            held, crash = lost.halved
            self._state.on_batch_crash(held.head, crash, lost.items)
        for batch in again:
            for held in [held for held in batch.chunks if held.unwanted]:
                batch.drop(held)
                await self._release(held, TERM)
        self._background.spawn(self._compute_again(again), "compute a batch again")

    async def _compute_again(self, again: list[ChunkBatch[HeldChunk]]) -> None:
        for batch in again:
            if any(self._is_to_fetch(held) for held in batch.chunks):
                await self._fetch(batch.chunks)
            for held in [held for held in batch.chunks if held.unwanted]:
                batch.drop(held)
        again = [batch for batch in again if batch.chunks]
        if self.intake.stopped:
            await self._give_back([held for batch in again for held in batch.chunks])
        else:
            await self._gather().add_again(again)

    def _is_to_fetch(self, held: HeldChunk) -> bool:
        """Return whether a chunk needs bytes from elsewhere, where its worker cannot read them."""
        if held.constants and not self._constants.are_here(held):
            return True
        if held.at is None or held.items:
            return False
        return held.at.region is None or held.head.inbox not in self._neighbours

    async def _start_fetched(self, fresh: list[HeldChunk]) -> None:
        """Fetch the items and constants that did not come with their chunks, and start those."""
        await self._fetch(fresh)
        await self._start([held for held in fresh if not await self._pass_on(held)])

    async def _pass_on(self, held: HeldChunk) -> bool:
        """Let another host compute a chunk whose constants this one cannot have; not for ever."""
        if not held.refusal or held.unwanted or held.leases[-1].deliveries >= DELIVERIES:
            return False
        await self._release(held, LATER)
        return True

    async def _fetch(self, chunks: list[HeldChunk]) -> None:
        for held in chunks:
            if held.constants and not await self._constants.fetch(held):
                await self._withdraw(held)
                continue
            if held.at is not None and not held.items:
                items = await self._parts.fetch(held, held.at)
                if items is None:
                    await self._withdraw(held)
                else:
                    held.items = items

    def give_constants(self, worker: Worker, held: HeldChunk) -> None:
        """Give a worker the constants of its next chunk."""
        self._constants.give(worker, held)

    # Far from the broker

    async def measure(self) -> None:
        """Measure the round trip to the broker."""
        try:
            shortest = await self._connection.round_trip()
            for _ in range(PINGS - 1):
                if shortest < FAR_SECONDS:
                    break
                # A busy machine delays some answers, however near the broker is.
                shortest = min(shortest, await self._connection.round_trip())
            self.prefetch.on_measured(shortest)
            self.intake.on_measured(is_far=self.prefetch.round_trip > 0)
        except JetmapError as error:
            logger.debug("the round trip was not measured: %s", error)

    def _ask_ahead(self, slot: Slot, chunks: list[HeldChunk]) -> None:
        """Pull the next chunk ahead of these chunks' expected end, if anything is known of them."""
        if len(chunks) == 1:
            chunks[0].begun = time.monotonic()
        delay = self.prefetch.delay([(held.head.function, held.head.count) for held in chunks])
        if delay is not None:
            self._later(delay, lambda: self._pull_ahead(slot, chunks[-1]))

    async def _pull_ahead(self, slot: Slot, held: HeldChunk) -> None:
        if held.finished or self.intake.stopped or not slot.is_ready:
            return
        if self.prefetch.ask(slot):
            await self.intake.on_core_freed()

    async def _hand_back(self, chunks: list[HeldChunk]) -> None:
        """Let chunks run elsewhere whose core has not come free in time."""
        if self.prefetch.give_back(chunks):
            for held in chunks:
                await self._release(held, NAK)

    def _later(self, delay: float, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(delay, lambda: self._background.spawn(act(), "ask ahead"))

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
                await self._release(held, TERM)
            elif self._batching is not None:
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
            held.unsent += 1
            self._open_bytes += len(values)
            self._background.spawn(self._send_values(held, head, report, values), "send values")
            return
        # A report without outcomes or tries leaves nothing to store.
        is_news = head.count or head.errors
        await (held.sink if is_news else self._reports).add(held, report)

    async def _send_values(
        self, held: HeldChunk, head: ReportHead, report: bytes, values: bytes
    ) -> None:
        """Send large values on their way, and then their report."""
        try:
            if held.sink is self._stored:
                await self._stored.add_large(held, report, values)
            elif _chunk(held.data).protocol < PARTS_PROTOCOL:
                whole = _report(report)
                whole.values, whole.size = values, 0
                report = encode(whole)
                if len(report) > (limit := self._connection.max_payload - ENVELOPE_BYTES):
                    report = too_large(report, limit)
                await self._reports.add(held, report)
            elif await self._parts.push(held, head, values):
                await self._reports.add(held, report)
            else:
                await self._withdraw(held)
            held.unsent -= 1
            await self._reports.flush()
        finally:
            self._open_bytes -= len(values)
            await self._pull_held_back()

    async def _pull_held_back(self) -> None:
        """Pull for the cores that waited until large values were on their way."""
        while self._held_back and self._open_bytes <= OPEN_BYTES:
            self._held_back -= 1
            try:
                await self.intake.on_core_freed()
            except JetmapError as error:
                logger.debug("not pulled: %s", error)

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
            await self._release(held, TERM)
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
            await self._on_claim_answer(mail)
            return
        for held in self._held.confirm(mail.tokens):
            self._held.on_answer(held.head.inbox, time.monotonic())
            await self._acknowledge(held, ACK)

    async def _on_claim_answer(self, answer: ClaimAnswer) -> None:
        self._held.on_answer(answer.dispatcher, time.monotonic())
        for map, number in answer.unwanted:
            held = self._held.get(map, number)
            if held is not None:
                await self._withdraw(held)
        self._claims.on_answer(answer)

    async def withdraw_map(self, map: str) -> None:
        """End the chunks of a map, and those that are still on their way."""
        self._withdrawn[map] = None
        if len(self._withdrawn) > WITHDRAWN_KEPT:
            del self._withdrawn[next(iter(self._withdrawn))]
        for held in self._held.of_map(map):
            await self._withdraw(held)

    async def _withdraw(self, held: HeldChunk) -> None:
        """End a chunk that is no longer wanted: by its worker, or by replacing that."""
        if held.unwanted:
            return
        held.unwanted = True
        self._parts.check()
        if self._batching is not None:
            self._batching.drop(held)
        if not any(slot.stop(held, self._grace) for slot in self._slots):
            self._claims.refuse(held)
            await self._release(held, TERM)

    async def _release(self, held: HeldChunk, answer: bytes) -> None:
        self._held.drop(held)
        await self._acknowledge(held, answer)

    async def _acknowledge(self, held: HeldChunk, answer: bytes) -> None:
        """Acknowledge each delivery whose last chunk this was."""
        self._released.set()
        for lease in held.leases:
            if lease.release():
                await self._send(lease.ack, answer)

    # Periodic steps

    async def beat(self) -> None:
        """Send claims and unconfirmed reports, every two seconds."""
        now = time.monotonic()
        await self.claim()
        await self._reports.send_overdue(now)
        await self._stored.store_overdue(now)
        await self._constants.beat(now)

    async def claim(self) -> None:
        """Claim all chunks that are held."""
        await self._claims.send(self._in_progress())

    def _in_progress(self) -> dict[ChunkKey, int | None]:
        """Return the item in progress of each chunk that is being computed."""
        return {slot.held.key: slot.item for slot in self._slots if slot.held is not None}

    async def renew_leases(self) -> None:
        for ack in self._held.leases():
            await self._send(ack, IN_PROGRESS)

    async def check(self) -> None:
        """Look, once a second, for lost pulls and lost callers."""
        now = time.monotonic()
        for held in self._held.take_abandoned(now):
            logger.warning("map %s: its caller is gone; its chunk is dropped", held.head.map)
            await self._withdraw(held)
        for slot in self._slots:
            slot.rest()
        if self._batching is not None:
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
