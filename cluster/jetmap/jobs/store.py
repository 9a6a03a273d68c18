"""Read and write the streams of jobs. What to write is decided elsewhere."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from jetmap.errors import BrokerUnreachable, JetmapError, NoRoom
from jetmap.nats import jetstream
from jetmap.nats.answers import (
    NO_DIRECTORY,
    JetStreamError,
    checked,
    is_disk_full,
    lacks_room,
)
from jetmap.nats.broker import Broker, Message, Subscription
from jetmap.nats.errors import ADVICE, NoResponders
from jetmap.nats.provision import STREAM_NOT_FOUND
from jetmap.wire import subjects

from .filler import Filler
from .record import KeyRecord, Record, read_record

logger = logging.getLogger(__name__)

# Seconds for which a request is retried while the broker has no leader.
RETRY_FOR = 15.0
# Seconds between retries.
RETRY_EVERY = 0.25
# Seconds for one batched read.
FETCH_SECONDS = 5.0
# Bytes and messages of one batched read.
FETCH_BYTES = 4 << 20
FETCH_MESSAGES = 64
FULL_DISK = (
    "Make room on its disk. `jetmap up` then starts its server again by itself; any other NATS "
    "server takes writes only after you have started it again"
)

_key = msgspec.json.Decoder(KeyRecord).decode

MARKER = "Nats-Marker-Reason"


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message of a stream. seq: its sequence number. time: when it was stored, as RFC 3339."""

    seq: int
    data: bytes
    subject: str = ""
    time: str = ""


class Conflict(JetmapError):  # noqa: N818  # it is not a fault
    """The error for a record that somebody else wrote first."""


class Store:
    """The streams of one pool's jobs.

    make: makes those that are missing; None: nobody does.
    """

    def __init__(
        self,
        connection: Broker,
        pool: str,
        make: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._make = make
        self.connection = connection
        self.pool = pool
        self.filler = Filler(connection, pool)
        self._jobs = subjects.job_stream(pool, "JOBS")
        self._stuck: set[str] = set()  # Streams that a full disk had stopped when last checked.
        self._lacks_room = False  # For the last record, even in the room kept for records.

    @property
    def takes_records(self) -> bool:
        """Return whether the last attempt to write a record found room."""
        return self._jobs not in self._stuck and not self._lacks_room

    async def restore(self) -> None:
        """Make streams anew that somebody has removed; what they held is lost."""
        if self._make is None:
            return
        logger.warning("a stream of the jobs of pool %s is gone; it is made anew", self.pool)
        try:
            await self._make()
        except JetmapError as error:
            logger.debug("the streams of jobs cannot be made: %s", error)

    # Records

    async def read(self, job: str) -> tuple[Record | None, int]:
        """Read a job's record, or None, and its sequence number from the leader."""
        found = await self._last(subjects.job_state(self.pool, job))
        if found is None:
            return None, 0
        message, seq = found
        return (read_record(message, job) if message else None), seq

    async def age(self, job: str) -> float:
        """Return the seconds since a job's record was written, by the broker's clock."""
        subject = subjects.job_state(self.pool, job)
        found = await self.connection.api(f"STREAM.MSG.GET.{self._jobs}", {"last_by_subj": subject})
        info = await self.connection.api(f"STREAM.INFO.{self._jobs}")
        age = jetstream.parsed_time(info["ts"]) - jetstream.parsed_time(found["message"]["time"])
        return age.total_seconds()

    async def write(self, record: Record, after: int, *, ttl: float | None = None) -> int:
        """Store a record, if its predecessor has sequence number ``after`` (0: none exists).

        ttl: seconds until it expires. Returns its sequence number. Raises Conflict.
        """
        subject = subjects.job_state(self.pool, record.id)
        return await self._note(subject, msgspec.json.encode(record), after, ttl)

    async def read_key(self, key: str) -> tuple[KeyRecord | None, int]:
        found = await self._last(subjects.job_key(self.pool, key))
        if found is None:
            return None, 0
        try:
            return (_key(found[0]) if found[0] else None), found[1]
        except msgspec.MsgspecError as error:
            logger.warning(
                "cannot read the record of idempotency key %s; the key counts as free: %s",
                key,
                error,
            )
            return None, found[1]

    async def write_key(self, key: str, record: KeyRecord, after: int, ttl: float) -> int:
        subject = subjects.job_key(self.pool, key)
        return await self._note(subject, msgspec.json.encode(record), after, ttl)

    async def renew_lease(self, dispatcher: str, ttl: float) -> None:
        await self._note(subjects.lease(self.pool, dispatcher), b"1", None, ttl)

    async def drop_lease(self, dispatcher: str) -> None:
        await self._purge("JOBS", subjects.lease(self.pool, dispatcher))

    async def has_lease(self, dispatcher: str) -> bool:
        found = await self._last(subjects.lease(self.pool, dispatcher))
        return found is not None and found[0] != b""

    async def watch(self, on_stored: Callable[[Message], Awaitable[None]]) -> Any:
        """Call ``on_stored`` with each record, key and lease stored from now on."""

        async def receive(message: Message) -> None:
            await on_stored(message)

        return await self.connection.subscribe(subjects.republished(self.pool), receive)

    # Inputs and outcomes

    async def append(self, subject: str, data: bytes) -> int:
        """Store a message, and return its sequence number. Raises NoRoom."""
        try:
            if self.filler.is_released and not await self.filler.fill():
                raise JetStreamError(503, 10023, "what is left is kept for records")
            return await self._put(subject, data, None, None)
        except JetStreamError as error:
            if not lacks_room(error):
                raise
            raise await self.no_room(error, len(data)) from error

    async def fetch(
        self,
        kind: str,
        subject: str,
        after: int,
        *,
        messages: int = FETCH_MESSAGES,
        max_bytes: int = FETCH_BYTES,
    ) -> list[StoredMessage]:
        """Read the next messages on a subject after number ``after``; empty at the end.

        Any replica may answer (batched direct get, ADR-31), so the newest messages may be missing.
        """
        inbox = f"{self.connection.inbox_prefix}.{subjects.new_id()}"
        found: list[StoredMessage] = []
        done = asyncio.get_running_loop().create_future()

        async def receive(message: Message) -> None:
            headers = message.headers or {}
            if "Nats-Sequence" in headers:
                # Each names its predecessor: after a reconnect, some in between may be missing.
                if int(headers["Nats-Last-Sequence"]) == (found[-1].seq if found else 0):
                    data = b"" if MARKER in headers else message.data
                    subject = headers.get("Nats-Subject", "")
                    at = headers.get("Nats-Time-Stamp", "")
                    found.append(StoredMessage(int(headers["Nats-Sequence"]), data, subject, at))
            elif not done.done():
                done.set_result(headers.get("Status", "503"))

        subscription = await self.connection.subscribe(inbox, receive, direct=True)
        request = {
            "seq": after + 1,
            "next_by_subj": subject,
            "batch": messages,
            "max_bytes": max_bytes,
        }
        stream = subjects.job_stream(self.pool, kind)
        try:
            await self.connection.publish(
                f"{self.connection.api_prefix}DIRECT.GET.{stream}",
                msgspec.json.encode(request),
                inbox,
            )
            async with asyncio.timeout(FETCH_SECONDS):
                status = await done
        except TimeoutError:
            if found:
                return found  # In order: what is missing is fetched next.
            raise BrokerUnreachable(f"stream {stream} does not answer") from None
        finally:
            await subscription.unsubscribe()
        if status not in ("204", "404", "408", "413"):
            raise BrokerUnreachable(f"stream {stream} does not answer ({status})")
        return found

    async def size(self, kind: str, subject: str) -> tuple[int, int]:
        """Ask the leader for the number of messages on a subject, and the stream's bytes.

        Both are 0 if somebody has removed the stream.
        """
        stream = subjects.job_stream(self.pool, kind)
        try:
            info = await self._patiently(
                lambda: self.connection.api(f"STREAM.INFO.{stream}", {"subjects_filter": subject})
            )
        except JetStreamError as error:
            if error.err_code != STREAM_NOT_FOUND:
                raise
            return 0, 0
        state = info["state"]
        return sum((state.get("subjects") or {}).values()), int(state["bytes"])

    async def ages(self, kind: str, subject: str, seqs: Iterable[int]) -> dict[int, float]:
        """Return the seconds since messages were stored, by the broker's clock, if still there."""
        found = {}
        for seq in seqs:
            for stored in await self.fetch(kind, subject, seq - 1, messages=1):
                if stored.seq == seq:
                    found[seq] = jetstream.parsed_time(stored.time)
        info = await self.connection.api(f"STREAM.INFO.{subjects.job_stream(self.pool, kind)}")
        now = jetstream.parsed_time(info["ts"])
        return {seq: (now - at).total_seconds() for seq, at in found.items()}

    async def last_outcome(self) -> int:
        """Return the sequence number of the newest outcome of any job."""
        stream = subjects.job_stream(self.pool, "OUTCOMES")
        info = await self.connection.api(f"STREAM.INFO.{stream}")
        return int(info["state"]["last_seq"])

    async def listen(self, job: str, on_stored: Callable[[int], None]) -> Subscription:
        """Call ``on_stored`` with the sequence number of each stored outcome of the job."""

        async def receive(message: Message) -> None:
            on_stored(int((message.headers or {}).get("Nats-Sequence", 0)))

        subject = subjects.stored(self.pool, job)
        return await self.connection.subscribe(subject, receive, direct=True)

    async def jobs_in(self, kind: str) -> set[str]:
        """Return the jobs that have messages in a stream."""
        stream = subjects.job_stream(self.pool, kind)
        found: set[str] = set()
        offset = 0
        while True:
            request = {"subjects_filter": ">", "offset": offset}
            info = await self.connection.api(f"STREAM.INFO.{stream}", request)
            page = info["state"].get("subjects") or {}
            found |= {subject.rsplit(".", 1)[1].partition("=")[0] for subject in page}
            offset += len(page)
            if not page or offset >= info.get("total", 0):
                return found

    async def remove(self, job: str) -> None:
        """Remove a job's input and outcomes."""
        await self._purge("INPUT", subjects.job_input(self.pool, job))
        await self._purge("INPUT", subjects.job_constants(self.pool, job))
        await self._purge("OUTCOMES", subjects.job_outcomes(self.pool, job))

    async def remove_input(self, record: Record) -> None:
        """Remove a job's input. If a full disk forbids it, the input stays as long as the job."""
        job = record.id
        try:
            await self._purge("INPUT", subjects.job_input(self.pool, job))
            if record.has_constants:
                await self._purge("INPUT", subjects.job_constants(self.pool, job))
        except NoRoom as error:
            logger.info("the input of job %s stays as long as the job: %s", job, error)

    async def forget(self, job: str, seq: int) -> bool:
        """Remove a job's record, unless it was written since ``seq``. Needs no room.

        Returns whether the record was removed.
        """
        return await self._purge("JOBS", subjects.job_state(self.pool, job), seq) > 0

    async def forget_key(self, key: str, seq: int) -> None:
        """Remove a key, unless it was written since ``seq``."""
        await self._purge("JOBS", subjects.job_key(self.pool, key), seq)

    # Inside

    async def _last(self, subject: str) -> tuple[bytes, int] | None:
        """Return the last message on a subject; empty if it has expired."""
        try:
            answer = await self._patiently(
                lambda: self.connection.api(
                    f"STREAM.MSG.GET.{self._jobs}", {"last_by_subj": subject}
                )
            )
        except JetStreamError as error:
            if error.err_code in (jetstream.NO_MESSAGE, STREAM_NOT_FOUND):
                return None
            raise
        message = answer["message"]
        headers = base64.b64decode(message.get("hdrs", ""))
        if MARKER.encode() in headers:
            return b"", int(message["seq"])
        return base64.b64decode(message.get("data", "")), int(message["seq"])

    async def _note(self, subject: str, data: bytes, after: int | None, ttl: float | None) -> int:
        """Put a record; in a full store use the room kept for records. Raises NoRoom.

        Outcomes on their way may take that room first.
        """
        try:
            seq = await self._put_in_reserve(subject, data, after, ttl)
        except JetStreamError as error:
            if not lacks_room(error):
                raise
            self._lacks_room = True
            raise await self.no_room(error, len(data)) from error
        self._lacks_room = False
        return seq

    async def _put_in_reserve(
        self, subject: str, data: bytes, after: int | None, ttl: float | None
    ) -> int:
        try:
            return await self._put(subject, data, after, ttl)
        except JetStreamError as error:
            if not lacks_room(error) or not await self.filler.release():
                raise
        logger.warning("the store of jobs is full; using the room reserved for records")
        return await self._put(subject, data, after, ttl)

    async def no_room(self, error: JetStreamError, wanted: int) -> NoRoom:
        """Make the error for a full store: how much is used, and what to do."""
        used, limit = 0, -1
        try:
            info = await self.connection.api("INFO")
            used, limit = int(info["storage"]), int(info["limits"]["max_storage"])
        except (JetmapError, KeyError) as unknown:
            logger.debug("cannot read how much the account has stored: %s", unknown)
        of = f" of {limit:,}" if limit >= 0 else ""
        advice = (
            "Delete finished jobs, or give the server more room: its disk, max_file_store, or "
            "its account's limits"
        )
        if is_disk_full(error):
            advice = FULL_DISK
        elif error.err_code == NO_DIRECTORY:
            advice = ADVICE[NO_DIRECTORY].capitalize()
        return NoRoom(
            f"the NATS server has no room for jobs: {error.description} (error {error.err_code}; "
            f"{used:,}{of} bytes are used in its file storage). {advice}",
            limit=limit if limit >= 0 else used,
            used=used,
            wanted=wanted,
        )

    async def _put(self, subject: str, data: bytes, after: int | None, ttl: float | None) -> int:
        headers: dict[str, str] = {}
        if after is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(after)
        if ttl is not None:
            headers["Nats-TTL"] = f"{max(1, round(ttl))}s"
        try:
            return await self._request(subject, data, headers or None)
        except JetStreamError as error:
            if error.err_code != jetstream.WRONG_LAST_SEQUENCE:
                raise
            # It may be this very message, stored although the reply was lost.
            found = await self._last(subject)
            if found is not None and found[0] == data:
                return found[1]
            raise Conflict(f"{subject} was written by somebody else") from error

    async def _request(self, subject: str, data: bytes, headers: dict[str, str] | None) -> int:
        stream = subjects.job_stream(self.pool, subjects.kind_of(subject))

        async def ask() -> dict[str, Any]:
            if stream in self._stuck:
                await self._check_disk(stream)
            try:
                return checked(await self.connection.request(subject, data, 5, headers))
            except NoResponders:
                if await self.is_gone(subjects.kind_of(subject)):
                    await self.restore()
                raise
            except BrokerUnreachable:
                await self._check_disk(stream)
                raise

        return int((await self._patiently(ask))["seq"])

    async def is_gone(self, kind: str) -> bool:
        """Return whether a stream was removed, as far as the broker answers."""
        if self._make is None or not self.connection.connected:
            return False
        stream = subjects.job_stream(self.pool, kind)
        try:
            await self.connection.api(f"STREAM.INFO.{stream}")
        except JetStreamError as error:
            return error.err_code == STREAM_NOT_FOUND
        except BrokerUnreachable:
            return False
        return False

    async def _check_disk(self, stream: str) -> None:
        """Raise JetStreamError if the full disk is why a stream does not answer."""
        self._stuck.discard(stream)
        error = await jetstream.write_error(self.connection, stream)
        if error is not None:
            self._stuck.add(stream)
            raise error

    async def _purge(self, kind: str, subject: str, until: int | None = None) -> int:
        """Remove messages, and return their number. until: the last sequence number to remove.

        Raises NoRoom if the disk is full.
        """
        stream = subjects.job_stream(self.pool, kind)
        request: dict[str, Any] = {"filter": subject}
        if until is not None:
            request["seq"] = until + 1
        try:
            answer = await self._patiently(
                lambda: self.connection.api(f"STREAM.PURGE.{stream}", request)
            )
        except JetStreamError as error:
            if error.err_code == STREAM_NOT_FOUND:
                return 0
            if not lacks_room(error):
                raise
            raise await self.no_room(error, 0) from error
        return int(answer.get("purged", 0))

    async def _patiently(self, ask: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """Retry while the broker is away or elects a leader."""
        deadline = time.monotonic() + RETRY_FOR
        while True:
            try:
                return await ask()
            except BrokerUnreachable:
                if time.monotonic() >= deadline:
                    raise
            except JetStreamError as error:
                if error.err_code not in (10005, 10008) or time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(RETRY_EVERY)
