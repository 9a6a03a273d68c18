"""The cluster that a command uses: the settings' broker, this directory's ``up``, or its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jetmap.embedded.running import find_running
from jetmap.errors import ConfigurationError
from jetmap.machine import working_directory
from jetmap.settings import Settings

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster


def attached(settings: Settings) -> Cluster:
    """Return a cluster at the broker of the settings or of this directory's ``up``, not started."""
    from jetmap.client.cluster import Cluster

    return Cluster(settings=with_broker(settings))


def embedded(settings: Settings, tasks: str) -> Cluster:
    """Return a cluster of this command's own that runs ``tasks``, not started."""
    from jetmap.client.cluster import Cluster

    return Cluster(settings=settings.replace(nats_url=None, tasks=[tasks], join_up=False))


def with_broker(settings: Settings) -> Settings:
    """Return settings that name a broker. Raises ConfigurationError if there is none."""
    found = settings if settings.broker.nats_url else running_up(settings)
    if found is None:
        where = f"of pool {settings.broker.pool} " if settings.was_given("pool") else ""
        raise ConfigurationError(
            [
                f"no broker is named, and no `jetmap up` {where}runs in {working_directory()}: "
                "give --nats URL (or JETMAP_NATS_URL), or start `jetmap up TASKS` here first"
            ]
        )
    return found


def running_up(settings: Settings) -> Settings | None:
    """Return settings that name the running ``up`` of this directory, or None."""
    pool = settings.broker.pool if settings.was_given("pool") else None
    up = find_running(working_directory(), pool)
    if up is None:
        return None
    return settings.at(up.url, up.user, up.password).replace(pool=up.pool)
