"""``jetmap api``: run a gateway."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import socket
from typing import TYPE_CHECKING

import typer

from jetmap.background import beside
from jetmap.errors import ConfigurationError
from jetmap.machine import keep_heap, uncollected
from jetmap.settings import Settings

from .children import inherited_socket
from .clusters import attached, with_broker
from .exits import Exit
from .listening import gateway_problems, listen, url_of
from .options import BROKER, GATEWAY, takes
from .signals import LEAVE_SECONDS, Stop, StopRequested, run

if TYPE_CHECKING:
    import uvicorn


@takes(*BROKER, *GATEWAY, "grace", serves=True)
def api(settings: Settings) -> None:
    """Run a gateway: HTTP in front of a pool.

    Without --nats it serves the `jetmap up` of this directory. After SIGTERM or Ctrl-C it accepts
    no more requests, finishes those it has within --grace seconds and exits with 0. A second
    signal ends it at once. A gateway that listens beyond loopback requires a token.

    Example: jetmap api --nats nats://broker:4222 --host 0.0.0.0 --token-file token
    """
    if problems := gateway_problems(settings):
        raise ConfigurationError(problems)
    keep_heap()
    settings = with_broker(settings)
    inherited = inherited_socket()
    # The socket of `up` stays open while this process is started again.
    with (
        listen(settings.gateway.host, settings.gateway.port)
        if inherited is None
        else socket.socket(fileno=inherited) as sock
    ):
        import uvloop

        raise typer.Exit(
            run(
                serve(settings, sock, "/docs" if inherited is None else ""),
                uvloop.new_event_loop,
                patience=settings.workers.grace + LEAVE_SECONDS,
            )
        )


async def serve(settings: Settings, sock: socket.socket, announce: str) -> int:
    """Answer requests until a signal. Returns the exit code.

    Args:
        announce: Path of the address to print; empty: none.
    """
    with uncollected():
        from jetmap_api import create_app
        from jetmap_api.server import GatewayServer
        from jetmap_api.server.guard import raise_descriptor_limit

    raise_descriptor_limit()
    if any(variable.startswith("OTEL_") for variable in os.environ):
        from jetmap import tracing

        tracing.configure()
    stop = Stop()
    # Started here and not in the application's lifespan, where a fault would print a traceback.
    async with contextlib.AsyncExitStack() as stack:
        try:
            cluster = await stop.cancel_on_request(stack.enter_async_context(attached(settings)))
        except StopRequested:
            return Exit.OK  # It has no requests yet.
        app = create_app(cluster, settings)
        server = GatewayServer(
            app,
            settings.limits,
            most=settings.limits.max_connections,
            grace=max(1, math.ceil(settings.workers.grace)),
            on_refusal=app.state.refusals,
        )
        if announce:
            typer.echo(f"{url_of(sock)}{announce}")
        gc.freeze()  # The collector need not visit again what the start made: it stays.
        async with beside(_stop_server(stop, server)):
            await server.serve(sockets=[sock])
    return Exit.OK


async def _stop_server(stop: Stop, server: uvicorn.Server) -> None:
    await stop.requested.wait()
    server.should_exit = True
    await stop.forced.wait()
    server.force_exit = True
