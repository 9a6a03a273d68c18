"""Limits of connections, read once from the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jetmap.settings import Settings


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits of one connection; each field is the setting of that name.

    Times are seconds, sizes bytes, rates bytes a second.
    """

    header_timeout: float = 20.0
    keep_alive: float = 75.0
    body_idle_timeout: float = 60.0
    send_timeout: float = 300.0
    max_header_bytes: int = 64 << 10
    max_body_bytes: int = 1 << 30
    min_body_rate: int = 128

    @classmethod
    def of(cls, settings: Settings) -> Timeouts:
        return cls(
            header_timeout=settings.header_timeout,
            keep_alive=settings.keep_alive,
            body_idle_timeout=settings.body_idle_timeout,
            send_timeout=settings.send_timeout,
            max_header_bytes=int(settings.max_header_bytes),
            max_body_bytes=int(settings.max_body_bytes),
            min_body_rate=settings.min_body_rate,
        )
