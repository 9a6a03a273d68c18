"""The ``Cluster`` of a command: at the broker it is told of, or embedded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jetmap.settings import Settings

from .running import with_broker

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster


def attached(settings: Settings) -> Cluster:
    """At the broker of the settings, or of this directory's ``up``. Not started yet."""
    from jetmap.client.cluster import Cluster

    return Cluster(settings=with_broker(settings))


def embedded(settings: Settings, tasks: str) -> Cluster:
    """One of this machine's own, that runs ``tasks``. Not started yet."""
    from jetmap.client.cluster import Cluster

    return Cluster(settings=settings.replace(nats_url=None, tasks=[tasks], join_up=False))
