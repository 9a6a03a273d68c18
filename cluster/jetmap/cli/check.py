"""``jetmap check``: everything that can be known before anything is started."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import typer
from rich.console import Console

from jetmap import subjects
from jetmap.broker import topology
from jetmap.broker.auth import without_secrets
from jetmap.broker.connection import Connection, JetStreamError
from jetmap.broker.server import find_binary
from jetmap.errors import ConfigurationError, JetmapError, TopologyMismatch
from jetmap.settings import Settings, config_file, unknown_variables

from .exits import Exit, code_of
from .listening import gateway_problems, listen, server_problems
from .options import BROKER, GATEWAY, SERVER, WORKER, takes
from .running import running_up

CONNECT_SECONDS = 5.0
SECRET_FILES = (
    *("nats_password_file", "nats_token_file", "nats_creds", "nats_tls_key"),
    "token_file",
)

Fact = str
Step = tuple[str, Callable[[], Fact]]


@takes("tasks", *BROKER, *WORKER, *GATEWAY, *SERVER)
def check(settings: Settings) -> None:
    """Validates configuration and connection, starts nothing.

    Imports the TASKS, if there are any, in this process. Every problem is shown; the exit
    code is that of the first.

    Example: jetmap check tasks.py --nats nats://broker:4222 --nats-user jetmap
    """
    console = Console(soft_wrap=True, highlight=False)
    failures = []
    for name, step in steps(settings):
        try:
            fact = step()
        except JetmapError as exc:
            failures.append(exc)
            console.print("[red]✗[/red]", end=" ")
            console.print(f"{name}: {exc}", markup=False)
        else:
            console.print("[green]✓[/green]", end=" ")
            console.print(f"{name}: {fact}", markup=False)
    for warning in unknown_variables():
        console.print("[yellow]![/yellow]", end=" ")
        console.print(warning, markup=False)
    raise typer.Exit(code_of(failures[0]) if failures else Exit.OK)


def steps(settings: Settings) -> Iterator[Step]:
    """What is checked, in order."""
    yield "settings", lambda: f"from {config_file() or 'defaults, options and variables'}"
    yield "secrets", lambda: _secrets(settings)
    if settings.tasks:
        yield "tasks", lambda: _tasks(settings)
    yield "cores", lambda: _cores(settings)
    yield "gateway", lambda: _gateway(settings)
    if settings.nats_url:
        yield "broker", lambda: asyncio.run(_broker(settings))
    elif running_up(settings) is not None:
        yield "broker", lambda: asyncio.run(_running(settings))
    else:
        yield "nats-server", lambda: _server(settings)


def _secrets(settings: Settings) -> Fact:
    """Secrets can be read, and only by their owner."""
    found = {
        "nats_password": settings.read_nats_password(),
        "nats_token": settings.read_nats_token(),
        "token": settings.read_token(),
    }
    problems = []
    for name in (
        "nats_password_file",
        "nats_token_file",
        "nats_creds",
        "nats_tls_key",
        "token_file",
    ):
        path = getattr(settings, name)
        # Containers get theirs read-only from /run/secrets, where modes are not theirs to set.
        if path and not path.startswith("/run/secrets/") and Path(path).stat().st_mode & 0o077:
            problems.append(f"{name}: others may read {path}: chmod 600 {path}")
    if problems:
        raise ConfigurationError(problems)
    return ", ".join(name for name, value in found.items() if value) or "none"


def _tasks(settings: Settings) -> Fact:
    """Each file or module can be imported, as by a worker, and each type has a schema."""
    from jetmap.tasks import registered
    from jetmap.worker import process

    problems = []
    process.in_worker = True  # Nor would a worker let it start a Cluster.
    try:
        for argument in settings.tasks:
            problems += _import_problems(argument)
    finally:
        process.in_worker = False
    for function in registered():
        try:
            function.info()
        except TypeError as exc:
            problems.append(str(exc))
    if problems:
        raise ConfigurationError(problems)
    return ", ".join(sorted(function.name for function in registered()))


def _import_problems(argument: str) -> list[str]:
    from jetmap.importing import told
    from jetmap.loading import load
    from jetmap.messages import Setup

    try:
        load(Setup(tasks=[argument]))
    except ConfigurationError as exc:
        return exc.problems
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # Whatever it is, it is the file's: also that it exits.
        return [f"{argument}: {told(exc)}"]
    return []


def _cores(settings: Settings) -> Fact:
    from jetmap.worker.limits import choose_cores

    try:
        chosen = choose_cores(settings.cores)
    except ValueError as exc:
        raise ConfigurationError([f"--cores: {exc}"]) from exc
    pinned = [str(cpu) for cpu in chosen if cpu is not None]
    return f"{len(chosen)}" + (f", pinned to {','.join(pinned)}" if pinned else ", not pinned")


def _gateway(settings: Settings) -> Fact:
    if problems := gateway_problems(settings):
        raise ConfigurationError(problems)
    if running_up(settings) is not None:
        return "runs here already"
    listen(settings.host, settings.port).close()
    return f"{settings.host}:{settings.port} is free"


def _server(settings: Settings) -> Fact:
    if problems := server_problems(settings):
        raise ConfigurationError(problems)
    with socket.socket() as probe:
        probe.settimeout(1)
        taken = settings.nats_port and probe.connect_ex(("127.0.0.1", settings.nats_port)) == 0
    if taken:
        raise ConfigurationError(
            [
                f"port {settings.nats_port} is taken: --nats-port 0 takes any that is free, or "
                "give --nats URL if that is your broker"
            ]
        )
    return f"{find_binary()}, embedded"


async def _running(settings: Settings) -> Fact:
    found = running_up(settings)
    assert found is not None
    return await _broker(found)


async def _broker(settings: Settings) -> Fact:
    """The broker answers, has JetStream, and its stream (if it is there) is ours."""
    where = ", ".join(without_secrets(server) for server in settings.servers())
    connection = await Connection.open(
        settings.servers(), name="jetmap check", auth=settings.auth(), timeout=CONNECT_SECONDS
    )
    try:
        try:
            await connection.api("INFO")
        except JetmapError as exc:
            raise ConfigurationError(
                [f"{where} has no JetStream for this user ({exc}): switch it on in its config"]
            ) from exc
        name = subjects.stream(settings.pool)
        try:
            info = await connection.api(f"STREAM.INFO.{name}")
        except JetStreamError as exc:
            if exc.err_code != topology.STREAM_NOT_FOUND:
                raise TopologyMismatch(str(exc)) from exc
            await _may_create(connection, settings, f"STREAM.CREATE.{name}")
            return f"{where}; stream {name} is not there yet, the first worker makes it"
        # It is there, so this makes nothing: it only compares.
        await topology.ensure_stream(connection, settings.pool)
        await _may_create(connection, settings)
        return f"{where}; stream {name}, {info['config']['num_replicas']} copies"
    finally:
        await connection.close()


async def _may_create(connection: Connection, settings: Settings, *calls: str) -> None:
    """Raises Forbidden unless the server lets us ask for this, and a worker for its consumers."""
    if settings.tasks:
        calls += (f"CONSUMER.CREATE.{subjects.stream(settings.pool)}.check",)
    for call in calls:
        # What is no JSON is answered, if it is let through, and makes nothing.
        await connection.request(f"$JS.API.{call}", b"?")
