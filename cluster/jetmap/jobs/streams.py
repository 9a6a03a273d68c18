"""The three streams that jobs live in, made when the first job is submitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jetmap import subjects
from jetmap.broker import topology
from jetmap.broker.connection import Connection, JetStreamError

MARKER_SECONDS = 3600  # How long an expired job is known to have been there.


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """replicas 0: three in a cluster, else one. max_bytes: of inputs and outcomes together."""

    replicas: int = 0
    max_bytes: int = 8 << 30


async def last(c: Connection, pool: str) -> int | None:
    """The sequence number of what was written last of all jobs; None: nobody has made them."""
    try:
        info = await c.api(f"STREAM.INFO.{subjects.job_stream(pool, 'JOBS')}")
    except JetStreamError as error:
        if error.err_code != topology.STREAM_NOT_FOUND:
            raise
        return None
    return int(info["state"]["last_seq"])


async def ensure(c: Connection, pool: str, options: StoreOptions) -> None:
    """Makes those that are missing. Raises TopologyMismatch, naming each setting that differs."""
    for kind, subject, required in _wanted(pool):
        await topology.ensure(
            c,
            subjects.job_stream(pool, kind),
            [subject],
            required,
            {"num_replicas": topology.replicas(c, options.replicas)},
        )


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
            "dest": subjects.told(pool),
        },
    }
    outcomes = durable | {
        "republish": {
            "src": subjects.job_outcomes(pool, ">"),
            "dest": subjects.stored(pool, ">"),
            "headers_only": True,
        }
    }
    # With a limit for each subject ``discard: new`` would refuse a record's next version.
    states["discard"] = "old"
    return [
        ("JOBS", f"jetmap.job.{pool}.>", states),
        ("INPUT", subjects.job_input(pool, "*"), durable),
        ("OUTCOMES", subjects.job_outcomes(pool, "*"), outcomes),
    ]
