"""``jetmap api``: a gateway."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket

import typer
import uvicorn

from jetmap.errors import ConfigurationError
from jetmap.settings import Settings

from . import tether
from .clusters import attached
from .exits import Exit
from .listening import gateway_problems, listen, url_of
from .options import BROKER, GATEWAY, takes
from .running import with_broker
from .signals import LEAVE_SECONDS, Asked, Stop, run_heeding


@takes(*BROKER, *GATEWAY, "grace")
def api(settings: Settings) -> None:
    """A gateway: HTTP in front of a pool.

    Without --nats it serves the `jetmap up` of this directory. SIGTERM or Ctrl-C: takes no
    more requests, finishes those it has within --grace seconds, exits with 0; a second
    signal: at once. Beyond loopback it asks for a token.

    Example: jetmap api --nats nats://broker:4222 --host 0.0.0.0 --token-file token
    """
    if problems := gateway_problems(settings):
        raise ConfigurationError(problems)
    settings = with_broker(settings)
    inherited = tether.inherited_socket()
    with (
        listen(settings.gateway.host, settings.gateway.port)
        if inherited is None
        else _adopt(inherited) as sock
    ):
        import uvloop

        raise typer.Exit(
            run_heeding(
                serve(settings, sock, inherited is None),
                uvloop.new_event_loop,
                patience=settings.workers.grace + LEAVE_SECONDS,
            )
        )


async def serve(settings: Settings, sock: socket.socket, announce: bool) -> int:
    """Answers requests until a signal; returns the exit code. announce: say where."""
    from jetmap_api import create_app
    from jetmap_api.server import GatewayServer
    from jetmap_api.server.guard import raise_descriptor_limit

    raise_descriptor_limit()
    stop = Stop()
    # Started here, not in the application's lifespan: there a fault would be a traceback.
    async with contextlib.AsyncExitStack() as stack:
        try:
            cluster = await stop.unless_asked(stack.enter_async_context(attached(settings)))
        except Asked:
            return Exit.OK  # It had taken nothing yet.
        app = create_app(cluster, settings)
        server = GatewayServer(
            app,
            settings.limits,
            most=settings.limits.max_connections,
            grace=max(1, math.ceil(settings.workers.grace)),
            on_refusal=app.state.refusals,
        )
        if announce:
            typer.echo(f"{url_of(sock)}/docs")
        obeying = asyncio.ensure_future(_obey(stop, server))
        try:
            await server.serve(sockets=[sock])
        finally:
            obeying.cancel()
    return Exit.OK


async def _obey(stop: Stop, server: uvicorn.Server) -> None:
    await stop.asked.wait()
    server.should_exit = True
    await stop.demanded.wait()
    server.force_exit = True


def _adopt(descriptor: int) -> socket.socket:
    """The socket that ``up`` listens on, and keeps while we are started again."""
    return socket.socket(fileno=descriptor)
