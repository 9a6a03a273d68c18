"""Agents of the same machine: whose cores another one pins already.

Two agents of one pool on one machine (an `up` and a `worker` beside it) would each count all
cores, and pin two workers to each of them.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import msgspec

from jetmap.machine import allowed_cpus, boot_id, choose_cores
from jetmap.nats.broker import Broker
from jetmap.wire import subjects
from jetmap.wire.messages import Ping, Presence, encode

logger = logging.getLogger(__name__)

# Seconds that other agents get to answer.
PATIENCE = 0.3


@dataclass(frozen=True)
class Share:
    """cores: as for AgentOptions. warning: what to tell the user, or None."""

    cores: str | int | None
    warning: str | None = None


async def taken_cores(connection: Broker, pool: str) -> dict[int, int]:
    """Cores of this machine that agents of the pool have pinned, and the process id of each."""
    found: dict[str, Presence] = {}

    async def announced(message: object) -> None:
        presence = msgspec.msgpack.decode(getattr(message, "data"), type=Presence)  # noqa: B009
        found[presence.agent] = presence

    subscription = await connection.subscribe(subjects.all_presence(pool), announced)
    try:
        await connection.publish(subjects.control(pool), encode(Ping()))
        await asyncio.sleep(PATIENCE)
    finally:
        await subscription.unsubscribe()
    return taken_of(list(found.values()), boot_id())


def taken_of(agents: list[Presence], machine: str) -> dict[int, int]:
    """Which of this machine's cores these agents have pinned."""
    return {
        core.cpu: presence.pid
        for presence in agents
        if machine and presence.machine == machine and not presence.gone
        for core in presence.workers
        if core.cpu is not None
    }


def share(
    wanted: str | int | None, taken: dict[int, int], allowed: list[int] | None = None
) -> Share:
    """The cores to take where others have some already.

    wanted: the setting ``cores``; a list is taken as it is. allowed: what this process may use.
    """
    if not taken:
        return Share(wanted)
    if wanted is not None and not str(wanted).isdecimal():
        return _told(wanted, [cpu for cpu in choose_cores(wanted) if cpu is not None], taken)
    allowed = allowed_cpus() if allowed is None else allowed
    free = [cpu for cpu in allowed if cpu not in taken]
    if wanted is None:
        if not free:
            return _told(None, allowed, taken)
        count = min(len(free), len(choose_cores(None)))
        pids = ", ".join(str(pid) for pid in sorted(set(taken.values())))
        return Share(
            _listed(free[:count]),
            f"process {pids} has pinned the other cores of this machine; taking {count} that "
            "are free (--cores chooses)",
        )
    count = int(wanted)
    chosen = [*free, *(cpu for cpu in allowed if cpu in taken)][:count]
    if len(chosen) < count:
        return _told(wanted, allowed, taken)
    return _told(_listed(chosen), chosen, taken)


def _told(cores: str | int | None, chosen: list[int], taken: dict[int, int]) -> Share:
    twice = [cpu for cpu in chosen if cpu in taken]
    if not twice:
        return Share(cores)
    pids = ", ".join(str(pid) for pid in sorted({taken[cpu] for cpu in twice}))
    return Share(
        cores,
        f"core {_listed(twice)} of this machine is pinned by another agent of this pool already "
        f"(process {pids}) and now counts twice, which makes nothing faster: end one of the two, "
        "or give --cores",
    )


def _listed(cpus: list[int]) -> str:
    return ",".join(str(cpu) for cpu in cpus)
