"""Where things travel: NATS subjects, streams and consumers.

One work stream a pool; one consumer a lane of an offer::

    jetmap.work.<pool>.<offer>.<lane>.<map>.<chunk>    chunks, one subject each; small ones of
                                                       several maps share a message, which
                                                       has an id of its own for <map>
    jetmap.agents.<pool>.<agent>                       presence
    jetmap.control.<pool>                              to every agent of the pool
    <inbox>.<dispatcher>.…                             results, claims, publish acks
    <inbox>.<agent>.…                                  confirmations, pulls
"""

from __future__ import annotations

import re
import secrets

TOKEN = re.compile(r"[A-Za-z0-9_-]+")


def new_id(size: int = 9) -> str:
    """A random identifier that is one subject token."""
    return secrets.token_urlsafe(size)


def stream(pool: str) -> str:
    return f"JETMAP_WORK_{pool}"


def bucket(pool: str) -> str:
    """The key-value bucket that remembers offers and functions."""
    return f"jetmap_{pool}"


def work(pool: str, offer: str, lane: str, map: str, chunk: int | str) -> str:
    return f"jetmap.work.{pool}.{offer}.{lane}.{map}.{chunk}"


def all_work(pool: str) -> str:
    return f"jetmap.work.{pool}.>"


def lane_work(pool: str, offer: str, lane: str) -> str:
    return f"jetmap.work.{pool}.{offer}.{lane}.>"


def map_work(pool: str, map: str) -> str:
    """Every chunk of one map, whatever its offer and lane."""
    return f"jetmap.work.{pool}.*.*.{map}.>"


def consumer(offer: str, lane: str, epoch: str) -> str:
    """A consumer's name. epoch: of the stream, so that a stale acknowledgement of an earlier
    stream of this name cannot hit a message of the new one."""
    return f"{offer}-{lane}-{epoch}"


def presence(pool: str, agent: str) -> str:
    return f"jetmap.agents.{pool}.{agent}"


def all_presence(pool: str) -> str:
    return f"jetmap.agents.{pool}.*"


def control(pool: str) -> str:
    return f"jetmap.control.{pool}"
