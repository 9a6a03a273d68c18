"""Names of NATS subjects, streams and consumers.

One work stream a pool, or several shards (``<pool>=<number>`` instead of ``<pool>``); one consumer
a lane of an offer::

    jetmap.work.<pool>.<offer>.<lane>.<map>.<chunk>    chunks, one subject each; small ones of
                                                       several maps share a message, which
                                                       has an id of its own for <map>
    jetmap.agents.<pool>.<agent>                       presence
    jetmap.control.<pool>                              to every agent of the pool
    jetmap.dispatchers.<pool>.<dispatcher>             activity
    jetmap.look.<pool>                                 to every dispatcher of the pool
    jetmap.steer.<pool>                                the same: somebody has paused or limited
    <inbox>.<dispatcher>.…                             results, claims, publish acks, requests for
                                                       parts of items, parts of values
    <inbox>.<agent>.…                                  confirmations, pulls, answers about parts

Jobs have three streams a pool::

    jetmap.job.<pool>.state.<job>                      records, the last one of each job
    jetmap.job.<pool>.key.<digest>                     idempotency keys
    jetmap.job.<pool>.lease.<dispatcher>               dispatchers that run jobs and are alive
    jetmap.told.<pool>.>                               each message stored in those three
    jetmap.input.<pool>.<job>                          items, in order
    jetmap.input.<pool>.<job>=put                      values that were put, in parts
    jetmap.outcome.<pool>.<job>                        outcomes, as they come
    jetmap.stored.<pool>.<job>                         notices that some were stored
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection
from typing import Literal
from zlib import crc32

TOKEN = re.compile(r"[A-Za-z0-9_-]+")

# The name of the consumer for chunks that only the user of a `jetmap up` may send, of any lane.
LOCAL: Literal["local"] = "local"


def new_id(size: int = 9) -> str:
    """Make a random identifier that is one subject token."""
    return secrets.token_urlsafe(size)


# Shards. Their number is part of the offer, so that a dispatcher sends chunks only where all agents
# of the offer take them. A queue is a pool's only work stream, or one of its shards.


def sharded(offer: str, shards: int) -> str:
    """The name of an offer whose chunks are in this number of shards."""
    return f"{offer}={shards}" if shards > 1 else offer


def queues(pool: str, offer: str) -> list[str]:
    """The queues with chunks of an offer."""
    shards = offer.partition("=")[2]
    return [f"{pool}={number}" for number in range(1, int(shards) + 1)] if shards else [pool]


def queue(pool: str, offer: str, map: str, avoided: Collection[str] = ()) -> str:
    """The queue of a map's chunks; another one, if there is one, instead of those avoided."""
    if "=" not in offer:
        return pool
    found, digest = queues(pool, offer), crc32(map.encode())
    chosen = found[digest % len(found)]
    if chosen in avoided and (others := [other for other in found if other not in avoided]):
        return others[digest % len(others)]
    return chosen


def is_shard(queue: str) -> bool:
    """Return whether a queue is one of several."""
    return "=" in queue


def queue_of(subject: str) -> str:
    """The queue of a work subject."""
    return subject.split(".", 3)[2]


def stream(queue: str) -> str:
    return f"JETMAP_WORK_{queue}"


def bucket(pool: str) -> str:
    """The key-value bucket that remembers offers and functions."""
    return f"jetmap_{pool}"


def work(queue: str, offer: str, lane: str, map: str, chunk: int | str) -> str:
    return f"jetmap.work.{queue}.{offer}.{lane}.{map}.{chunk}"


def all_work(queue: str) -> str:
    return f"jetmap.work.{queue}.>"


def lane_work(queue: str, offer: str, lane: str) -> str:
    """Chunks of one lane of an offer; of all its lanes if one consumer serves them (local)."""
    return f"jetmap.work.{queue}.{offer}.{'' if lane == LOCAL else f'{lane}.'}>"


def map_work(queue: str, map: str) -> str:
    """Every chunk of one map, whatever its offer and lane."""
    return f"jetmap.work.{queue}.*.*.{map}.>"


def consumer(offer: str, lane: str, epoch: str) -> str:
    """A consumer's name.

    epoch: the stream's, so that a stale acknowledgement for an earlier stream of this name cannot
    hit a message of the new one.
    """
    return f"{offer}-{lane}-{epoch}"


def presence(pool: str, agent: str) -> str:
    return f"jetmap.agents.{pool}.{agent}"


def all_presence(pool: str) -> str:
    return f"jetmap.agents.{pool}.*"


def control(pool: str) -> str:
    return f"jetmap.control.{pool}"


def activity(pool: str, dispatcher: str) -> str:
    return f"jetmap.dispatchers.{pool}.{dispatcher}"


def all_activity(pool: str) -> str:
    return f"jetmap.dispatchers.{pool}.*"


def look(pool: str) -> str:
    """The subject on which every dispatcher is asked to announce its activity now."""
    return f"jetmap.look.{pool}"


def steer(pool: str) -> str:
    """The subject on which every dispatcher hears that a control has changed."""
    return f"jetmap.steer.{pool}"


def values_part(inbox: str, agent: str, map: str, number: int, attempt: int, start: int) -> str:
    """The parts of one report's values, on their way to a dispatcher, but for their offset."""
    return f"{inbox}.values.{agent}.{map}.{number}.{attempt}.{start}"


# Jobs. A job's id is one subject token; so is the id of the map that an owner runs for it.


def job_state(pool: str, job: str) -> str:
    return f"jetmap.job.{pool}.state.{job}"


def job_key(pool: str, key: str) -> str:
    """The record of an idempotency key. key: a digest of the caller and its key."""
    return f"jetmap.job.{pool}.key.{key}"


def lease(pool: str, dispatcher: str) -> str:
    return f"jetmap.job.{pool}.lease.{dispatcher}"


def republished(pool: str, what: str = ">") -> str:
    """The subject on which the state stream republishes what it stores."""
    return f"jetmap.told.{pool}.{what}"


def job_input(pool: str, job: str) -> str:
    return f"jetmap.input.{pool}.{job}"


def job_constants(pool: str, job: str) -> str:
    """The constants of a job, beside its input in the same stream."""
    return f"jetmap.input.{pool}.{job}=put"


def job_outcomes(pool: str, job: str) -> str:
    return f"jetmap.outcome.{pool}.{job}"


def stored(pool: str, job: str) -> str:
    """The subject of notices that the outcome stream has stored some; without the outcomes."""
    return f"jetmap.stored.{pool}.{job}"


SPARE_PIECES = 16  # Pieces of the filler when it is whole.


def spare(pool: str, piece: str) -> str:
    """A piece of the filler that keeps room for records."""
    return f"jetmap.spare.{pool}.{piece}"


def spare_probe(pool: str, piece: str) -> str:
    """A piece that is stored only to find out whether there is room."""
    return f"jetmap.spare.{pool}.probe.{piece}"


def kind_of(subject: str) -> str:
    """The kind of the stream of jobs that takes a subject."""
    return {"input": "INPUT", "outcome": "OUTCOMES"}.get(subject.split(".", 2)[1], "JOBS")


def job_stream(pool: str, kind: str) -> str:
    """A stream of jobs. kind: JOBS, INPUT, OUTCOMES or SPARE."""
    return f"JETMAP_{kind}_{pool}"


def job_map(job: str, epoch: int, run: int = 1) -> str:
    """The id of the map that runs a job under one owner; no other map's id has a '='."""
    return f"={job}={epoch}" if run == 1 else f"={job}={epoch}={run}"


def job_of(map: str) -> str | None:
    """The job that a map runs, or None."""
    return map.split("=")[1] if map.startswith("=") else None


def run_of(map: str) -> int:
    """The run of its job that a map belongs to."""
    parts = map.split("=")
    return int(parts[3]) if len(parts) == 4 else 1
