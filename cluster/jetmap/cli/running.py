"""Which broker a command talks to: the one it is told, or that of this directory's ``up``."""

from __future__ import annotations

from pathlib import Path

from jetmap.embedded.running import find_running
from jetmap.errors import ConfigurationError
from jetmap.settings import Settings


def with_broker(settings: Settings) -> Settings:
    """Settings that name a broker. Raises ConfigurationError if there is none."""
    found = settings if settings.broker.nats_url else running_up(settings)
    if found is None:
        where = f"of pool {settings.broker.pool} " if settings.was_given("pool") else ""
        raise ConfigurationError(
            [
                f"no broker is named, and no `jetmap up` {where}runs in {Path.cwd()}: give "
                "--nats URL (or JETMAP_NATS_URL), or start `jetmap up TASKS` here first"
            ]
        )
    return found


def running_up(settings: Settings) -> Settings | None:
    """Settings that name the running ``up`` of this directory, or None."""
    pool = settings.broker.pool if settings.was_given("pool") else None
    up = find_running(Path.cwd(), pool)
    if up is None:
        return None
    return settings.at(up.url, up.user, up.password).replace(pool=up.pool)
