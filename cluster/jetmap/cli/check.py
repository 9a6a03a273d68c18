"""``jetmap check``: everything that can be known before anything is started."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import typer
from rich.console import Console

from jetmap.errors import ConfigurationError, JetmapError, TopologyMismatch
from jetmap.jobs.streams import wishes
from jetmap.nats import jetstream, provision
from jetmap.nats.auth import Auth, without_secrets
from jetmap.nats.broker import Broker
from jetmap.nats.connection import Connection
from jetmap.nats.errors import JetStreamError, advised
from jetmap.nats.provision import described
from jetmap.nats.server import find_binary
from jetmap.settings import FIELDS, Settings, config_file, unknown_variables
from jetmap.wire import pool_streams, subjects

from .exits import Exit, code_of
from .listening import gateway_problems, listen, server_problems
from .options import BROKER, GATEWAY, SERVER, WORKER, takes
from .running import running_up
from .signals import run_unless_stopped
from .trial import is_there, try_stream

CONNECT_SECONDS = 5.0
CONSUMERS_REACHED = 10026
SECRET_FILES = [name for name, field in FIELDS.items() if field.setting.secret]

Fact = str


@dataclass
class Findings:
    """A fact, and what will not work although commands start."""

    fact: Fact
    doubts: list[str] = field(default_factory=list)


Step = tuple[str, Callable[[], "Fact | Findings"]]


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
            found = fact if isinstance(fact, Findings) else Findings(fact)
            console.print(f"{name}: {found.fact}", markup=False)
            for doubt in found.doubts:
                console.print("[yellow]![/yellow]", end=" ")
                console.print(f"{name}: {doubt}", markup=False)
    for warning in unknown_variables():
        console.print("[yellow]![/yellow]", end=" ")
        console.print(warning, markup=False)
    raise typer.Exit(code_of(failures[0]) if failures else Exit.OK)


def steps(settings: Settings) -> Iterator[Step]:
    """What is checked, in order."""
    yield "settings", lambda: f"from {config_file() or 'defaults, options and variables'}"
    yield "secrets", lambda: _secrets(settings)
    if settings.workers.tasks:
        yield "tasks", lambda: _tasks(settings)
    yield "cores", lambda: _cores(settings)
    yield "gateway", lambda: _gateway(settings)
    if settings.broker.nats_url:
        yield "broker", lambda: run_unless_stopped(check_broker(settings))
    elif running_up(settings) is not None:
        yield "broker", lambda: run_unless_stopped(_running(settings))
    else:
        yield "nats-server", lambda: _server(settings)


def _secrets(settings: Settings) -> Fact:
    """Secrets can be read, are what they should be, and are their owner's only."""
    Auth.of(settings).check_creds()
    found = {
        "nats_password": settings.broker.read_nats_password(),
        "nats_token": settings.broker.read_nats_token(),
        "nats_nkey": Auth.of(settings).nkey_seed(),
        "token": settings.gateway.read_token(),
    }
    problems = []
    for name in SECRET_FILES:
        path = settings.get(name)
        # Containers get theirs read-only from /run/secrets, where modes are not theirs to set.
        if path and not path.startswith("/run/secrets/") and Path(path).stat().st_mode & 0o077:
            problems.append(f"{name}: others may read {path}: chmod 600 {path}")
    if problems:
        raise ConfigurationError(problems)
    return ", ".join(name for name, value in found.items() if value) or "none"


def _tasks(settings: Settings) -> Fact:
    """Each file or module can be imported, as by a worker, and each type has a schema."""
    from jetmap.functions.task import registered
    from jetmap.worker import main

    problems = []
    main.in_worker = True  # Nor would a worker let it start a Cluster.
    try:
        for argument in settings.workers.tasks:
            problems += _import_problems(argument)
    finally:
        main.in_worker = False
    for function in registered():
        try:
            function.info()
        except TypeError as exc:
            problems.append(str(exc))
    if problems:
        raise ConfigurationError(problems)
    return ", ".join(sorted(function.name for function in registered()))


def _import_problems(argument: str) -> list[str]:
    from jetmap.functions.import_errors import format_import_error
    from jetmap.functions.locating import load
    from jetmap.wire.messages import Setup

    try:
        load(Setup(tasks=[argument]))
    except ConfigurationError as exc:
        return exc.problems
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # Whatever it is, it is the file's: also that it exits.
        return [f"{argument}: {format_import_error(exc)}"]
    return []


def _cores(settings: Settings) -> Fact:
    from jetmap.machine import choose_cores

    try:
        chosen = choose_cores(settings.workers.cores)
    except ValueError as exc:
        raise ConfigurationError([f"--cores: {exc}"]) from exc
    pinned = [str(cpu) for cpu in chosen if cpu is not None]
    return f"{len(chosen)}" + (f", pinned to {','.join(pinned)}" if pinned else ", not pinned")


def _gateway(settings: Settings) -> Fact:
    if problems := gateway_problems(settings):
        raise ConfigurationError(problems)
    if running_up(settings) is not None:
        return "runs here already"
    listen(settings.gateway.host, settings.gateway.port).close()
    return f"{settings.gateway.host}:{settings.gateway.port} is free"


def _server(settings: Settings) -> Fact:
    if problems := server_problems(settings):
        raise ConfigurationError(problems)
    with socket.socket() as probe:
        probe.settimeout(1)
        taken = (
            settings.server.nats_port
            and probe.connect_ex(("127.0.0.1", settings.server.nats_port)) == 0
        )
    if taken:
        raise ConfigurationError(
            [
                f"port {settings.server.nats_port} is taken: give --nats-port 0 for any "
                "free port, or --nats URL if that is your broker"
            ]
        )
    return f"{find_binary()}, embedded"


async def _running(settings: Settings) -> Findings:
    found = running_up(settings)
    assert found is not None
    return await check_broker(found)


async def check_broker(settings: Settings) -> Findings:
    """The broker answers, and has or may be given the streams that a worker and a gateway need."""
    where = ", ".join(without_secrets(server) for server in settings.broker.servers())
    connection = await Connection.open(
        settings.broker.servers(),
        name="jetmap check",
        auth=Auth.of(settings),
        timeout=CONNECT_SECONDS,
    )
    try:
        version = f"{where}, version {connection.server_version}"
        try:
            limits = (await connection.api("INFO"))["limits"]
        except JetStreamError as exc:
            raise advised(exc, where) from exc
        found = Findings(f"{version}; {await _work_stream(connection, settings)}")
        if settings.workers.tasks and 0 <= limits["max_consumers"] < len(pool_streams.LANES):
            refused = JetStreamError(400, CONSUMERS_REACHED, "maximum consumers limit reached")
            raise advised(refused, subjects.stream(settings.broker.pool))
        for step in (_bucket, _jobs):
            try:
                await step(connection, settings)
            except (JetStreamError, TopologyMismatch) as exc:
                found.doubts.append(f"{step.__doc__}: {exc}")
        return found
    finally:
        await connection.close()


async def _work_stream(connection: Broker, settings: Settings) -> str:
    """What a worker or gateway would exit for: the work stream, and the right to make it."""
    name = subjects.stream(settings.broker.pool)
    there = await is_there(connection, name)
    if there is not None:
        # It is there, so this makes nothing: it only compares.
        await pool_streams.ensure_stream(connection, settings.broker.pool)
        await _may_create(connection, settings)
        return f"{described(name, there)}"
    await _may_create(connection, settings, f"STREAM.CREATE.{name}")
    wish = pool_streams.work_wish(connection, settings.broker.pool, settings.stream)
    made = await try_stream(connection, wish, consumers=2 if settings.workers.tasks else 0)
    return f"stream {name} is not there yet, the first worker makes it" + (
        f": {made}" if made else ""
    )


async def _bucket(connection: Broker, settings: Settings) -> None:
    """functions are not remembered while no worker is there"""
    wish = pool_streams.bucket_wish(settings.broker.pool, provision.copies(connection, 0))
    if await is_there(connection, wish.config["name"]) is None:
        await try_stream(connection, wish)


async def _jobs(connection: Broker, settings: Settings) -> None:
    """no jobs, only maps"""
    copies = provision.copies(connection, settings.jobs.job_replicas)
    for wish, required in wishes(settings.broker.pool, settings.jobs, copies):
        if await is_there(connection, wish.config["name"]) is None:
            await try_stream(connection, wish)
        else:
            await jetstream.ensure(connection, wish.config["name"], wish, required)


async def _may_create(connection: Broker, settings: Settings, *calls: str) -> None:
    """Raises Forbidden unless the server lets us ask for this, and a worker for its consumers."""
    if settings.workers.tasks:
        calls += (f"CONSUMER.CREATE.{subjects.stream(settings.broker.pool)}.check",)
    for call in calls:
        # What is no JSON is answered, if it is let through, and makes nothing.
        await connection.request(f"{connection.api_prefix}{call}", b"?")
