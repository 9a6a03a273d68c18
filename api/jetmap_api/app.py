"""The gateway as an application, to run alone or to mount in another."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

import jetmap
from jetmap.client.cluster import Cluster
from jetmap.errors import ClusterClosed, ConfigurationError
from jetmap.settings import Settings

from . import controls, functions, health, metrics, open_maps, openapi
from .access_log import AccessLog, Refusals, RequestLines, Requests
from .admission import Admission
from .asgi import App, AsgiMessage, Receive, Scope, Send
from .dashboard import Dashboard
from .dependency import HINT, find_cluster
from .front import Front, ShortWay, is_short
from .handlers import exception_handlers
from .hosts import HostCheck
from .jobs import JobsEndpoints
from .login import Login
from .maps import Maps
from .pages import Pages
from .problems import end_cancelled
from .security import SiteCheck, TokenCheck
from .signed import SignedAddresses
from .signer import Signer
from .small_bodies import SmallBodies

if TYPE_CHECKING:
    from jetmap.dispatch.roster import FunctionStatus

DESCRIPTION = (
    "One Python function over every item of a list, on every core of every host. "
    "The paths below `/map/` are the functions that the workers offer now; each may also be run "
    "as a job, below `/jobs`."
)
CORS_HEADERS = (
    *("accept", "authorization", "content-type"),
    *("prefer", "last-event-id", "idempotency-key"),
)
CORS_METHODS = ("GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS")
CORS_EXPOSED = (
    *("location", "retry-after", "preference-applied", "link"),
    *("allow", "accept-post", "accept-patch", "www-authenticate"),
)


def create_app(cluster: Cluster | None = None, settings: Settings | None = None) -> Gateway:
    """Make the gateway.

    ``app.mount("/jetmap", create_app(cluster))`` puts it into another application. Mounted without
    a cluster, it uses that application's ``app.state.cluster``.

    Args:
        cluster: A cluster that its owner starts and closes. None: the gateway starts its own, as
            the settings say, and closes it at shutdown.
        settings: Settings; None loads them from variables and the configuration file.

    Raises:
        ConfigurationError: The settings are wrong, or would serve other hosts without a token.
    """
    if settings is None:
        settings = Settings.load()
    token = settings.gateway.read_token()
    if settings.gateway.listens_beyond_loopback and token is None:
        raise ConfigurationError(
            [
                f"host {settings.gateway.host} can be reached from other hosts: set token_file "
                "(JETMAP_TOKEN_FILE) to a file with a secret of your choice, or listen on 127.0.0.1"
            ]
        )
    return Gateway(cluster, settings, token)


class Gateway(FastAPI):
    """The application that ``create_app`` makes."""

    def __init__(self, cluster: Cluster | None, settings: Settings, token: str | None) -> None:
        super().__init__(
            title="jetmap",
            version=jetmap.__version__,
            description=DESCRIPTION,
            lifespan=_lifespan_for(cluster, settings),
            exception_handlers=exception_handlers(settings.gateway.debug),
            docs_url=None,  # our own page needs nothing from the internet
            redoc_url=None,
            redirect_slashes=False,  # a redirect loses bodies, and ignores proxies
        )
        self.state.cluster = cluster
        self.adopts = cluster is None  # until its own lifespan starts one
        self._short: App | None = None  # The layers, for what needs none of FastAPI's.
        self._settings = settings
        self._token = token
        self._signer = None if token is None else Signer(token)
        self.state.admission = Admission(settings.limits)
        self.state.scale_seconds = settings.gateway.scale_seconds
        self.state.requests = Requests()
        self.state.lines = RequestLines(settings.gateway.access_log)
        self.state.refusals = Refusals(self.state.requests, self.state.lines)
        self._maps = Maps(self._cluster, self.state.admission, settings.gateway.debug)
        self._jobs = JobsEndpoints(self._cluster, self.state.admission, settings.gateway.debug)
        self.router.routes += [
            Route("/map/{function}", self._maps, methods=["POST"], name="map"),
            SignedAddresses(self._cluster, self._signer).route(),
            *self._jobs.routes(),
            *Login(token, self._signer, settings.gateway.session_ttl).routes(),
            *Dashboard(
                self._cluster, guarded=token is not None, debug=settings.gateway.debug
            ).routes(),
            *Pages(self._functions, token is not None).routes(),
            *functions.router.routes,
            *open_maps.router.routes,
            *controls.router.routes,
            *health.router.routes,
            *metrics.router.routes,
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.adopts and scope["type"] != "lifespan":
            self.state.cluster = find_cluster(scope)
        short = self._short
        if short is not None and is_short(scope):
            # FastAPI would read the environment for telemetry on each request.
            scope["app"] = self
            await short(scope, receive, send)
            return
        await super().__call__(scope, receive, send)

    def build_middleware_stack(self) -> App:
        """Put the framework's layers after the short way of maps.

        If the user has added middleware, maps pass through it as well.
        """
        limits = self.state.admission.limits
        app: App = super().build_middleware_stack()
        app = SmallBodies(app, idle=limits.body_idle_timeout, rate=limits.min_body_rate)
        added: list[object] = [middleware.cls for middleware in self.user_middleware]
        if CORSMiddleware not in added:  # Else it says which other sites may ask.
            app = SiteCheck(app, self._settings.gateway.cors_origins)
        if not self.user_middleware:
            app = ShortWay({"/map/": self._maps.serve, "/jobs/": self._jobs.submit.serve}, app)
        if self._token is not None and self._signer is not None:
            app = TokenCheck(app, self._token, self._signer)
        # Beyond loopback, its names are unknown, and it always asks for a token.
        if (
            self._settings.gateway.allowed_hosts
            or not self._settings.gateway.listens_beyond_loopback
        ):
            app = HostCheck(app, self._settings.gateway.allowed_hosts)
        app = Front(app, self._settings.gateway.root_path)
        if self.user_middleware:
            app = _Stopping(app)
        if self._settings.gateway.cors_origins:
            # Outermost, so that a page may read any refusal.
            app = CORSMiddleware(
                app,
                allow_origins=self._settings.gateway.cors_origins,
                allow_methods=CORS_METHODS,
                allow_headers=CORS_HEADERS,
                expose_headers=CORS_EXPOSED,
            )
        app = AccessLog(app, self.state.requests, self.state.lines)
        if not self.user_middleware:
            self._short = _traced(app)
        return app

    def openapi(self) -> dict[str, Any]:
        """Make the document, with a path for each function that is offered now."""
        document = super().openapi()
        infos = [status.info for status in self._functions() if status.alive]
        cookie = None if self._signer is None else self._signer.cookie
        return openapi.extend(document, infos, cookie)

    def _functions(self) -> list[FunctionStatus]:
        cluster: Cluster | None = self.state.cluster
        return cluster.functions if cluster is not None else []

    def _cluster(self, scope: Scope) -> Cluster:
        cluster: Cluster | None = self.state.cluster
        if cluster is None:
            raise ClusterClosed(HINT)
        return cluster


def _traced(app: App) -> App:
    """Make spans of the requests, if this process has a tracer provider."""
    if "opentelemetry.trace" in sys.modules:
        from jetmap import tracing

        if tracing.is_configured():
            from .request_spans import RequestSpans

            return RequestSpans(app)
    return app


class _Stopping:
    """End requests that the server cancels, for applications with middleware of their own.

    Such middleware may answer in a task that the server does not know. Without it, the endpoints
    call ``end_cancelled`` themselves.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def sending(message: AsgiMessage) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except asyncio.CancelledError:
            if scope["type"] != "http":
                raise
            await end_cancelled(send, answering=started)


def _lifespan_for(
    cluster: Cluster | None, settings: Settings
) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: Gateway) -> AsyncIterator[None]:
        if cluster is not None:
            yield
            return
        async with Cluster(settings=settings) as own:
            app.state.cluster = own
            app.adopts = False
            try:
                yield
            finally:
                app.state.cluster = None
                app.adopts = True

    return lifespan
