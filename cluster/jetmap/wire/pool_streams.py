"""The streams, consumers and keys of a pool.

Consumers end five minutes after the last agent of their offer stopped pulling. Chunks that waited
in them stay in the stream. They are delivered when an agent of the same offer is back; otherwise
their dispatchers withdraw them, and the next agent that starts purges chunks whose dispatchers are
gone (``ensure_consumers``).

A queue, below, is the pool's work stream or one of its shards; see ``subjects``.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal
from urllib.parse import quote

import msgspec

from jetmap import bounds
from jetmap.nats import jetstream
from jetmap.nats.answers import JetStreamError, checked
from jetmap.nats.broker import Broker
from jetmap.nats.errors import NoResponders
from jetmap.nats.jetstream import parsed_time
from jetmap.nats.provision import STREAM_NOT_FOUND, Wish, copies, halves
from jetmap.settings import StreamSettings

from . import subjects
from .messages import Lane
from .presence import FunctionInfo
from .timing import ACK_WAIT, INACTIVE

logger = logging.getLogger(__name__)

LANES: tuple[Lane, ...] = ("express", "main")
SHARDS_KEY = "shards"  # Key of the pool's number of shards in its bucket.
# Bytes of a work stream: the least, if the broker has little room; the most in a storage that was
# not asked for, where others need room, too.
LEAST_BYTES, OTHER_BYTES = 16 * 2**20, 64 * 2**20
# Storages and sizes of the bucket to try: it takes kilobytes, but some accounts require a limit.
BUCKET_PLACES = [
    (storage, size) for storage in ("file", "memory") for size in (-1, 16 << 20, 1 << 20)
]

# Settings that a work stream must have.
WORK: dict[str, Any] = {
    "retention": "workqueue",
    "discard": "new",
    "discard_new_per_subject": True,
    "max_msgs_per_subject": 1,
    "max_age": 0,
}


async def ensure_stream(
    c: Broker, queue: str, options: StreamSettings | None = None, *, patience: float = 0.0
) -> str:
    """Make a work stream if it is missing; return its epoch.

    epoch: eight hex digits that no other stream of this name has. patience: seconds to keep asking
    while the broker does not answer; a cluster may take ten to elect a leader. Raises
    TopologyMismatch, naming each setting, if the stream exists and is not the queue that jetmap
    needs.
    """
    name = subjects.stream(queue)
    wish = work_wish(c, queue, options or StreamSettings())
    info = await jetstream.ensure(c, name, wish, WORK, patience=patience)
    return hashlib.sha256(info["created"].encode()).hexdigest()[:8]


def work_wish(c: Broker, queue: str, options: StreamSettings) -> Wish:
    """Describe the work stream to make.

    It is a queue, not the truth, so a smaller one, another storage or a single copy is better than
    none. A shard has one copy: another shard takes its chunks if its server is lost.
    """
    other: Literal["memory", "file"] = "file" if options.work_storage == "memory" else "memory"
    wanted = options.work_replicas or (1 if subjects.is_shard(queue) else 0)
    return Wish(
        WORK
        | {
            "name": subjects.stream(queue),
            "subjects": [subjects.all_work(queue)],
            "max_msgs": options.work_max_messages,
        },
        copies=copies(c, wanted),
        places=[
            *halves(options.work_storage, options.work_max_bytes, LEAST_BYTES),
            *halves(other, min(options.work_max_bytes, OTHER_BYTES), LEAST_BYTES),
        ],
        setting="work_",
    )


async def copies_there(c: Broker, pool: str, wanted: int = 0) -> tuple[int, ...]:
    """List numbers of copies to try for a stream that is the truth.

    If nothing is wanted, not fewer than the work stream has, although a server may be away now.
    """
    found = copies(c, wanted)
    if len(found) > 1:
        info = await c.api(f"STREAM.INFO.{subjects.stream(pool)}")
        if info["config"].get("num_replicas", 1) >= found[0]:
            return found[:1]
    return found


async def ensure_consumers(c: Broker, queue: str, offer: str, epoch: str) -> None:
    """Make the offer's consumers, one a lane, if they are missing.

    Also purges chunks of offers that nobody has served for ten minutes. Raises
    TopologyMismatch; JetStreamError if the stream is gone.
    """
    for lane in LANES:
        await jetstream.ensure_consumer(c, _consumer(queue, offer, lane, epoch))
    await _purge_stranded(c, queue)


async def ensure_local_consumer(c: Broker, queue: str, offer: str, epoch: str) -> None:
    """Make the consumer of chunks for one agent alone, if it is missing."""
    await jetstream.ensure_consumer(c, _consumer(queue, offer, subjects.LOCAL, epoch))


async def remember(
    c: Broker, pool: str, offer: str, version: str, functions: Sequence[FunctionInfo]
) -> int:
    """Write down that the offer exists; return its rank, which orders offers by age."""
    await _ensure_bucket(c, pool)
    names = [f.name for f in functions]
    value = msgspec.json.encode({"version": version, "functions": names})
    rank, *_ = await asyncio.gather(
        _create_key(c, pool, f"offer.{offer}", value),
        *(_create_key(c, pool, _function_key(n), offer.encode()) for n in names),
    )
    return rank


async def known(c: Broker, pool: str, function: str) -> bool:
    """Return whether any offer of this pool ever had a function of this name."""
    return await _revision(c, pool, _function_key(function)) is not None


async def read_key(c: Broker, pool: str, key: str) -> tuple[bytes, int]:
    """Return a key's value and its revision; empty and 0 if there is none."""
    message = await _last(c, pool, key)
    if message is None:
        return b"", 0
    return base64.b64decode(message.get("data", "")), int(message["seq"])


async def write_key(c: Broker, pool: str, key: str, value: bytes, after: int) -> int | None:
    """Write a key whose revision is ``after``; return the next one.

    None: somebody else was faster. after: 0: the key does not exist yet.
    """
    headers = {"Nats-Expected-Last-Subject-Sequence": str(after)}
    # The prefix leads there from a leaf node, too, which does not pass $KV on.
    subject = c.kv_prefix + _kv_subject(pool, key)
    try:
        try:
            answer = await c.request(subject, value, headers=headers)
        except NoResponders:
            await _ensure_bucket(c, pool)
            answer = await c.request(subject, value, headers=headers)
        return int(checked(answer)["seq"])
    except JetStreamError as error:
        if error.err_code == jetstream.WRONG_LAST_SEQUENCE:
            return None
        raise


def seats_key(function: str) -> str:
    """Return the key that says how a function's cores are shared."""
    return "seats." + _token(function)


async def shards(c: Broker, pool: str) -> int:
    """Return the number of shards of the pool; 1: its chunks are in one stream."""
    return _read_shards((await read_key(c, pool, SHARDS_KEY))[0])


async def set_shards(c: Broker, pool: str, count: int) -> None:
    """Write down the number of shards of the pool."""
    written = None
    while written is None:
        _, after = await read_key(c, pool, SHARDS_KEY)
        written = await write_key(c, pool, SHARDS_KEY, b"%d" % count, after)


def _read_shards(value: bytes) -> int:
    """Read the number of shards; 1 where somebody has removed it."""
    return min(max(int(value), 1), int(bounds.SHARDS.most)) if value.isdigit() else 1


async def purge(c: Broker, queue: str, subject: str) -> int:
    """Remove the waiting chunks on a subject (wildcards allowed); return how many."""
    return await jetstream.purge(c, subjects.stream(queue), subject)


def _consumer(queue: str, offer: str, lane: str, epoch: str) -> dict[str, Any]:
    """Make the request to create an offer's consumer."""
    name = subjects.consumer(offer, lane, epoch)
    return consumer_config(subjects.stream(queue), name, subjects.lane_work(queue, offer, lane))


def consumer_config(stream: str, name: str, subject: str) -> dict[str, Any]:
    """Make a request to create a lane's consumer."""
    config: dict[str, Any] = {
        "durable_name": name,
        "name": name,
        "filter_subject": subject,
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": int(ACK_WAIT * 1e9),
        "max_deliver": -1,
        "max_ack_pending": -1,
        "max_waiting": 65536,
        "inactive_threshold": int(INACTIVE * 1e9),
    }
    return {"stream_name": stream, "config": config, "action": "create"}


async def _purge_stranded(c: Broker, queue: str) -> None:
    """Purge chunks of offers without consumers.

    They must have waited twice as long as a consumer outlives its agents. If one was still wanted,
    its dispatcher publishes it again.
    """
    stream = subjects.stream(queue)
    try:
        info = await c.api(f"STREAM.INFO.{stream}", {"subjects_filter": subjects.all_work(queue)})
        waiting = {subject.split(".")[3] for subject in info["state"].get("subjects") or {}}
        if not waiting:
            return
        names = await jetstream.consumers(c, stream)
        served = {name.rsplit("-", 2)[0] for name in names}
        for offer in waiting - served:
            chunks = f"jetmap.work.{queue}.{offer}.>"
            oldest = await c.api(f"STREAM.MSG.GET.{stream}", {"seq": 1, "next_by_subj": chunks})
            age = parsed_time(info["ts"]) - parsed_time(oldest["message"]["time"])
            if age.total_seconds() > 2 * INACTIVE:
                purged = await purge(c, queue, chunks)
                logger.warning("purged %d chunks of offer %s, which no agent serves", purged, offer)
    except (JetStreamError, KeyError) as error:
        logger.debug("could not look for stranded chunks: %s", error)


def _kv_stream(pool: str) -> str:
    return f"KV_{subjects.bucket(pool)}"


def _kv_subject(pool: str, key: str) -> str:
    return f"$KV.{subjects.bucket(pool)}.{key}"


def _function_key(name: str) -> str:
    return f"fn.{_token(name)}"


def _token(name: str) -> str:
    """Make a subject token of a name: characters that one may not have become =XX."""
    return quote(name, safe="", errors="replace").replace(".", "%2E").replace("%", "=")


async def _ensure_bucket(c: Broker, pool: str) -> None:
    """Make the bucket if it is missing: as NATS tools know it (ADR-8), on file for its ranks."""
    name = _kv_stream(pool)
    try:
        await c.api(f"STREAM.INFO.{name}")
    except JetStreamError as error:
        if error.err_code != STREAM_NOT_FOUND:
            raise
        wish = bucket_wish(pool, await copies_there(c, pool))
        # If somebody has removed it, offers that are still served rank below those to come: nobody
        # writes an offer each microsecond.
        first = {"first_seq": time.time_ns() // 1000}
        await jetstream.find_stream(c, name, replace(wish, config=wish.config | first))


def bucket_wish(pool: str, copies: Sequence[int]) -> Wish:
    """Describe the bucket to make."""
    return Wish(
        {
            "name": _kv_stream(pool),
            "subjects": [_kv_subject(pool, ">")],
            "retention": "limits",
            "max_msgs_per_subject": 1,
            "discard": "new",
            "allow_rollup_hdrs": True,
            "deny_delete": True,
            "allow_direct": True,
        },
        copies=copies,
        places=BUCKET_PLACES,
    )


async def _create_key(c: Broker, pool: str, key: str, value: bytes) -> int:
    """Write the key unless it exists; return its revision."""
    while True:
        # Ask first, so that an agent that restarts, the usual case, needs no right to write.
        revision = await _revision(c, pool, key)
        if revision is not None:
            return revision
        revision = await write_key(c, pool, key, value, 0)
        if revision is not None:
            return revision


async def _revision(c: Broker, pool: str, key: str) -> int | None:
    message = await _last(c, pool, key)
    return None if message is None else int(message["seq"])


async def _last(c: Broker, pool: str, key: str) -> dict[str, Any] | None:
    """Return the stored message of a key, from the leader."""
    try:
        answer = await c.api(
            f"STREAM.MSG.GET.{_kv_stream(pool)}", {"last_by_subj": _kv_subject(pool, key)}
        )
    except JetStreamError as error:
        if error.err_code in (jetstream.NO_MESSAGE, STREAM_NOT_FOUND):
            return None
        raise
    message: dict[str, Any] = answer["message"]
    return message
