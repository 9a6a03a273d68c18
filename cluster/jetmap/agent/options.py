"""The options of an agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from jetmap.settings import Settings, WorkerSettings
from jetmap.wire.messages import PART_BYTES
from jetmap.wire.worker_start import Setup


@dataclass(frozen=True)
class AgentOptions:
    """The options of an agent."""

    settings: Settings
    setup: Setup  # Modules that the workers import, and their limits.
    sys_path: tuple[str, ...]  # Of the workers.
    cwd: str  # Of the workers.
    # None for all, a count, or a list as in "0,2-3": the setting, or what is left on this host.
    cores: str | int | None = None
    pinned: bool = True  # Whether each worker keeps to its core.
    ahead: bool = False  # Whether every chunk is taken at once: the pool has no other agent.
    embedded: bool = False  # Belongs to a keeper: chunks may name modules, source is watched.
    local: str = ""  # Offer of sealed chunks, see ``wire/seals.py``.
    code: str | None = None  # File in which to write down the source that the workers have loaded.
    host: str = ""

    @property
    def pool(self) -> str:
        return self.settings.broker.pool

    @property
    def workers(self) -> WorkerSettings:
        return self.settings.workers


def worker_setup(settings: Settings, **more: Any) -> Setup:
    """Build the first frame to a worker. more: what is not a setting."""
    return Setup(
        memory_limit=settings.workers.worker_memory,
        max_value=settings.limits.max_item_bytes,
        max_report=settings.chunks.report_bytes,
        inline=PART_BYTES,
        output_bytes=settings.workers.output_bytes,
        log_level=settings.logs.log_level,
        log_format=settings.logs.log_format,
        load_timeout=settings.workers.load_timeout,
        **more,
    )


def fit_to_messages(room: int, setup: Setup) -> Setup:
    """Limit reports, and the values in them, to the bytes that a message of the broker takes."""
    report, inline = min(setup.max_report, room), min(setup.inline, room)
    return msgspec.structs.replace(setup, max_report=report, inline=inline)
