"""The three streams that hold jobs, created when the first job is submitted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jetmap.nats import jetstream
from jetmap.nats.answers import JetStreamError
from jetmap.nats.broker import Broker
from jetmap.nats.provision import STREAM_NOT_FOUND, Wish, halves
from jetmap.settings import JobSettings
from jetmap.wire import pool_streams, subjects

from .store import Store

# Smallest size of a stream, in bytes, in an account that requires a limit for each.
LEAST_BYTES = 64 << 20
# Seconds for which an expired job is reported as expired.
MARKER_SECONDS = 3600


async def last(c: Broker, pool: str) -> int | None:
    """Return the sequence number of the newest record; None without the streams."""
    try:
        info = await c.api(f"STREAM.INFO.{subjects.job_stream(pool, 'JOBS')}")
    except JetStreamError as error:
        if error.err_code != STREAM_NOT_FOUND:
            raise
        return None
    return int(info["state"]["last_seq"])


async def ensure(c: Broker, store: Store, options: JobSettings) -> None:
    """Create missing streams. Raises TopologyMismatch, naming each setting that differs.

    A stream that was there before and that somebody has removed begins with higher numbers than it
    can have had: the place of a reader in it stays a place before all that comes.
    """
    pool = store.pool
    copies = await pool_streams.copies_there(c, pool, options.job_replicas)
    first = 1
    for wish, required in wishes(pool, options, copies):
        wish = replace(wish, config=wish.config | {"first_seq": first})
        info = await jetstream.ensure(c, wish.config["name"], wish, required)
        if info["state"]["last_seq"]:
            first = int(time.time() * 1000)
    await store.filler.ensure(copies)


def wishes(
    pool: str, options: JobSettings, copies: Sequence[int]
) -> list[tuple[Wish, dict[str, Any]]]:
    """Return how each stream is created, and what an existing one must have."""
    return [
        (
            Wish(
                required | {"name": subjects.job_stream(pool, kind), "subjects": [subject]},
                copies=copies,
                places=[("file", -1), *halves("file", options.job_store_bytes, LEAST_BYTES)],
                setting="job_",
            ),
            required,
        )
        for kind, subject, required in _wanted(pool)
    ]


def _wanted(pool: str) -> list[tuple[str, str, dict[str, Any]]]:
    durable: dict[str, Any] = {
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "allow_direct": True,
        "max_age": 0,
    }
    states = durable | {
        "max_msgs_per_subject": 1,
        "allow_msg_ttl": True,
        "subject_delete_marker_ttl": MARKER_SECONDS * 10**9,
        "allow_rollup_hdrs": True,
        "republish": {
            "src": f"jetmap.job.{pool}.>",
            "dest": subjects.republished(pool),
        },
    }
    outcomes = durable | {
        "republish": {
            "src": subjects.job_outcomes(pool, ">"),
            "dest": subjects.stored(pool, ">"),
            "headers_only": True,
        }
    }
    # With one message per subject, ``discard: new`` would refuse a record's next version.
    states["discard"] = "old"
    return [
        ("JOBS", f"jetmap.job.{pool}.>", states),
        ("INPUT", subjects.job_input(pool, "*"), durable),
        ("OUTCOMES", subjects.job_outcomes(pool, "*"), outcomes),
    ]
