"""The options of a dispatcher."""

from __future__ import annotations

from dataclasses import dataclass

from jetmap.settings import Settings
from jetmap.wire.seals import Sealer


@dataclass(frozen=True)
class DispatchOptions:
    """The options of a dispatcher."""

    settings: Settings
    sealer: Sealer | None = None  # Seals chunks that bring functions to this user's `jetmap up`.
    announce_seconds: float = 1.0  # Seconds to wait for an announcement of a function.

    @property
    def pool(self) -> str:
        return self.settings.broker.pool
