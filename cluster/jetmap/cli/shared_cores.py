"""Divide a machine's cores between several agents of one pool.

Otherwise an `up` and a `worker` beside it would each count all cores, and pin two workers to each.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from jetmap.machine import allowed_cpus, boot_id, choose_cores
from jetmap.nats.broker import Broker, Message
from jetmap.wire import subjects
from jetmap.wire.messages import Ping, encode
from jetmap.wire.presence import Presence, read_presence
from jetmap.wire.protocol import PROTOCOL

logger = logging.getLogger(__name__)

PATIENCE = 0.3  # Seconds that other agents have to answer.


@dataclass(frozen=True)
class Share:
    """The cores for this agent, as in AgentOptions, and a warning for the user or None."""

    cores: str | int | None
    warning: str | None = None


async def taken_cores(connection: Broker, pool: str) -> dict[int, int]:
    """Return this machine's cores that agents of the pool have pinned, and their process ids."""
    found: dict[str, Presence] = {}

    async def on_presence(message: Message) -> None:
        presence = read_presence(message.data)
        found[presence.agent] = presence

    subscription = await connection.subscribe(subjects.all_presence(pool), on_presence)
    try:
        await connection.publish(subjects.control(pool), encode(Ping(PROTOCOL)))
        await asyncio.sleep(PATIENCE)
    finally:
        await subscription.unsubscribe()
    return taken_of(list(found.values()), boot_id())


def taken_of(agents: list[Presence], machine: str) -> dict[int, int]:
    """Return this machine's cores that these agents have pinned, and their process ids."""
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
    """Choose cores beside those that other agents have pinned.

    Args:
        wanted: The setting ``cores``; a list is used as it is.
        taken: The cores of other agents, and their process ids.
        allowed: The cores that this process may use.
    """
    if not taken:
        return Share(wanted)
    if wanted is not None and not str(wanted).isdecimal():
        return _warn_if_shared(
            wanted, [cpu for cpu in choose_cores(wanted) if cpu is not None], taken
        )
    allowed = allowed_cpus() if allowed is None else allowed
    free = [cpu for cpu in allowed if cpu not in taken]
    if wanted is None:
        if not free:
            return _warn_if_shared(None, allowed, taken)
        count = min(len(free), len(choose_cores(None)))
        pids = ", ".join(str(pid) for pid in sorted(set(taken.values())))
        return Share(
            _listed(free[:count]),
            f"process {pids} has pinned the other cores of this machine; using the {count} free "
            "ones (--cores chooses others)",
        )
    count = int(wanted)
    chosen = [*free, *(cpu for cpu in allowed if cpu in taken)][:count]
    if len(chosen) < count:
        return _warn_if_shared(wanted, allowed, taken)
    return _warn_if_shared(_listed(chosen), chosen, taken)


def _warn_if_shared(cores: str | int | None, chosen: list[int], taken: dict[int, int]) -> Share:
    twice = [cpu for cpu in chosen if cpu in taken]
    if not twice:
        return Share(cores)
    pids = ", ".join(str(pid) for pid in sorted({taken[cpu] for cpu in twice}))
    return Share(
        cores,
        f"core {_listed(twice)} of this machine is already pinned by another agent of this pool "
        f"(process {pids}) and now counts twice, which makes nothing faster: end one of the two, "
        "or give --cores",
    )


def _listed(cpus: list[int]) -> str:
    return ",".join(str(cpu) for cpu in cpus)
