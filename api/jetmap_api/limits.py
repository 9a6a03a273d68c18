"""The limits of the gateway, read once from the settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster
    from jetmap.settings import Settings


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds; each field is the setting of that name."""

    max_body_bytes: int
    max_item_bytes: int
    max_list: int
    max_depth: int
    max_buffer_bytes: int
    max_spool_bytes: int
    max_total_spool_bytes: int
    max_memory_bytes: int
    max_open_maps: int
    max_items: int
    job_upload_idle: float = 60.0
    body_idle_timeout: float = 60.0
    min_body_rate: int = 128

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(
            max_body_bytes=int(settings.max_body_bytes),
            max_item_bytes=int(settings.max_item_bytes),
            max_list=settings.max_list,
            max_depth=settings.max_depth,
            max_buffer_bytes=int(settings.max_buffer_bytes),
            max_spool_bytes=int(settings.max_spool_bytes),
            max_total_spool_bytes=int(settings.max_total_spool_bytes),
            max_memory_bytes=settings.memory_budget(),
            max_open_maps=settings.max_open_maps,
            max_items=settings.max_items,
            job_upload_idle=settings.job_upload_idle,
            body_idle_timeout=settings.body_idle_timeout,
            min_body_rate=settings.min_body_rate,
        )

    def on(self, cluster: Cluster) -> Limits:
        """An item must also fit into a message of the broker."""
        if self.max_item_bytes <= cluster.max_item:
            return self
        return replace(self, max_item_bytes=cluster.max_item)
