"""``jetmap ui``: the dashboard of any cluster."""

from __future__ import annotations

import typer

from jetmap.errors import ConfigurationError
from jetmap.settings import Settings

from .api import serve
from .clusters import with_broker
from .listening import gateway_problems, listen
from .options import BROKER, GATEWAY, takes
from .signals import LEAVE_SECONDS, run


@takes(*BROKER, *GATEWAY, "grace", serves=True)
def ui(settings: Settings) -> None:
    """Serve the dashboard of a pool, and print its address.

    It is a gateway like that of `jetmap api`, on any free port of this machine unless --port names
    one. Without --nats it shows the `jetmap up` of this directory, whose own gateway has the same
    dashboard. One that listens beyond loopback requires a token.

    Example: jetmap ui --nats nats://broker:4222
    """
    if problems := gateway_problems(settings):
        raise ConfigurationError(problems)
    settings = with_broker(chosen(settings))
    with listen(settings.gateway.host, settings.gateway.port) as sock:
        import uvloop

        patience = settings.workers.grace + LEAVE_SECONDS
        raise typer.Exit(
            run(serve(settings, sock, "/ui"), uvloop.new_event_loop, patience=patience)
        )


def chosen(settings: Settings) -> Settings:
    """Return settings with any free port, unless a port was given."""
    return settings if settings.was_given("port") else settings.replace(port=0)
