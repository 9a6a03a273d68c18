"""``jetmap check``: find problems before anything is started."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from jetmap.errors import BrokerUnreachable, ConfigurationError, JetmapError, TopologyMismatch
from jetmap.jobs.streams import wishes
from jetmap.logs import harmless
from jetmap.nats import jetstream, provision
from jetmap.nats.answers import JetStreamError
from jetmap.nats.auth import Auth, without_secrets
from jetmap.nats.broker import Broker
from jetmap.nats.connection import Connection
from jetmap.nats.errors import Forbidden, advised
from jetmap.nats.provision import STREAM_NOT_FOUND, Wish, config_text, make
from jetmap.nats.server import find_binary
from jetmap.settings import FIELDS, Settings, config_file, unknown_variables
from jetmap.wire import pool_streams, subjects
from jetmap.wire.pool_streams import consumer_config

from .clusters import running_up
from .exits import Exit, code_of
from .listening import gateway_problems, listen, server_problems
from .options import BROKER, GATEWAY, SERVER, WORKER, takes
from .signals import run_cancellable

CONSUMERS_REACHED = 10026
SECRET_FILES = [name for name, field in FIELDS.items() if field.setting.secret]

Fact = str


@dataclass
class Findings:
    """A fact, and features that will not work although commands start."""

    fact: Fact
    doubts: list[str] = field(default_factory=list)


Step = tuple[str, Callable[[], "Fact | Findings"]]


@takes("tasks", *BROKER, *WORKER, *GATEWAY, *SERVER)
def check(settings: Settings) -> None:
    """Validate the configuration and the connection, and start nothing.

    Imports the TASKS, if there are any, in a process of its own. Shows every problem; the exit code
    is that of the first.

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
            console.print(harmless(f"{name}: {exc}", lines=True), markup=False)
        else:
            console.print("[green]✓[/green]", end=" ")
            found = fact if isinstance(fact, Findings) else Findings(fact)
            console.print(harmless(f"{name}: {found.fact}", lines=True), markup=False)
            for doubt in found.doubts:
                console.print("[yellow]![/yellow]", end=" ")
                console.print(harmless(f"{name}: {doubt}", lines=True), markup=False)
    for warning in unknown_variables():
        console.print("[yellow]![/yellow]", end=" ")
        console.print(harmless(warning, lines=True), markup=False)
    raise typer.Exit(code_of(failures[0]) if failures else Exit.OK)


def steps(settings: Settings) -> Iterator[Step]:
    """Yield the checks in order."""
    yield "settings", lambda: f"from {config_file() or 'defaults, options and variables'}"
    yield "secrets", lambda: _secrets(settings)
    if settings.workers.tasks:
        yield "tasks", lambda: _tasks(settings)
    yield "cores", lambda: _cores(settings)
    yield "gateway", lambda: _gateway(settings)
    if settings.broker.nats_url:
        yield "broker", lambda: run_cancellable(check_broker(settings))
    elif running_up(settings) is not None:
        yield "broker", lambda: run_cancellable(_running(settings))
    else:
        yield "nats-server", lambda: _server(settings)


def _secrets(settings: Settings) -> Fact:
    """Check that secrets can be read, have the right form, and are private to their owner."""
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
        # Containers get secrets read-only in /run/secrets, and cannot change their modes.
        if path and not path.startswith("/run/secrets/") and Path(path).stat().st_mode & 0o077:
            problems.append(f"{name}: others may read {path}: chmod 600 {path}")
    if problems:
        raise ConfigurationError(problems)
    return ", ".join(name for name, value in found.items() if value) or "none"


def _tasks(settings: Settings) -> Fact:
    """Check that each file or module can be imported, and that each type has a schema."""
    from .trial_import import try_import

    found = try_import(settings.workers.tasks)
    if found.problems:
        raise ConfigurationError(found.problems)
    return ", ".join(found.functions)


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
                f"port {settings.server.nats_port} is taken: give --nats-port 0 for any free port, "
                "or --nats URL if the program that listens there is your broker"
            ]
        )
    return f"{find_binary()}, embedded"


async def _running(settings: Settings) -> Findings:
    found = running_up(settings)
    assert found is not None
    return await check_broker(found)


async def check_broker(settings: Settings) -> Findings:
    """Check that the broker answers, and that its streams exist or could be created."""
    where = ", ".join(without_secrets(server) for server in settings.broker.servers())
    connection = await Connection.open(
        settings.broker.servers(),
        name="jetmap check",
        auth=Auth.of(settings),
    )
    try:
        version = f"{where}, version {connection.server_version}"
        try:
            limits = (await connection.api("INFO"))["limits"]
        except JetStreamError as exc:
            raise advised(exc, where) from exc
        stream = await _work_stream(connection, settings)
        shards, doubts = await _shards(connection, settings)
        found = Findings(f"{version}; {stream}{shards}", doubts)
        if settings.workers.tasks and 0 <= limits["max_consumers"] < len(pool_streams.LANES):
            refused = JetStreamError(400, CONSUMERS_REACHED, "maximum consumers limit reached")
            raise advised(refused, subjects.stream(settings.broker.pool))
        for step, consequence in (
            (_check_bucket, "functions are not remembered while no worker is running"),
            (_check_jobs, "maps work, but jobs do not"),
        ):
            try:
                await step(connection, settings)
            except (JetStreamError, TopologyMismatch) as exc:
                found.doubts.append(f"{consequence}: {exc}")
        return found
    finally:
        await connection.close()


async def _work_stream(connection: Broker, settings: Settings) -> str:
    """Check the work stream and the right to create it, without which workers exit."""
    name = subjects.stream(settings.broker.pool)
    there = await _stream_config(connection, name)
    if there is not None:
        # The stream exists, so this only compares it.
        await pool_streams.ensure_stream(connection, settings.broker.pool)
        await _may_create(connection, settings)
        return f"{config_text(name, there)}"
    await _may_create(connection, settings, f"STREAM.CREATE.{name}")
    wish = pool_streams.work_wish(connection, settings.broker.pool, settings.stream)
    made = await _try_stream(connection, wish, consumers=2 if settings.workers.tasks else 0)
    return f"stream {name} does not exist yet; the first worker creates it" + (
        f": {made}" if made else ""
    )


async def _shards(connection: Broker, settings: Settings) -> tuple[str, list[str]]:
    """Describe the pool's shards, and name those that do not answer."""
    pool, wanted = settings.broker.pool, settings.stream.work_shards
    try:
        there = await pool_streams.shards(connection, pool)
    except JetStreamError as error:
        return "", [f"the number of shards cannot be read: {error}"]
    text = "" if there == 1 else f", and {there} shards, which take its chunks"
    if wanted not in (0, there):
        text += f"; the next worker spreads the chunks over {wanted} (work_shards)"
    doubts = []
    for shard in subjects.queues(pool, subjects.sharded("", there)) if there > 1 else ():
        name = subjects.stream(shard)
        try:
            await _stream_config(connection, name)
        except BrokerUnreachable:
            doubts.append(f"the server of stream {name} is away; the other shards take its chunks")
    return text, doubts


async def _check_bucket(connection: Broker, settings: Settings) -> None:
    wish = pool_streams.bucket_wish(settings.broker.pool, provision.copies(connection, 0))
    if await _stream_config(connection, wish.config["name"]) is None:
        await _try_stream(connection, wish)


async def _check_jobs(connection: Broker, settings: Settings) -> None:
    copies = provision.copies(connection, settings.jobs.job_replicas)
    for wish, required in wishes(settings.broker.pool, settings.jobs, copies):
        if await _stream_config(connection, wish.config["name"]) is None:
            await _try_stream(connection, wish)
        else:
            await jetstream.ensure(connection, wish.config["name"], wish, required)


async def _may_create(connection: Broker, settings: Settings, *calls: str) -> None:
    """Raise Forbidden unless this account may make these calls, and create a worker's consumers."""
    if settings.workers.tasks:
        calls += (f"CONSUMER.CREATE.{subjects.stream(settings.broker.pool)}.check",)
    for call in calls:
        # The server answers a body that is not JSON with an error, if the call is permitted.
        await connection.request(f"{connection.api_prefix}{call}", b"?")


# Trial streams


async def _stream_config(c: Broker, name: str) -> dict[str, Any] | None:
    """Return a stream's configuration, or None if the stream does not exist."""
    try:
        found: dict[str, Any] = (await c.api(f"STREAM.INFO.{name}"))["config"]
    except JetStreamError as error:
        if error.err_code != STREAM_NOT_FOUND:
            raise
        return None
    return found


async def _try_stream(c: Broker, wish: Wish, *, consumers: int = 0) -> str | None:
    """Create a stream like this one under another name, with consumers, and remove it.

    Returns a description of the stream; None if nothing was created, because this account may not
    remove streams. Raises JetStreamError, with advice, if JetStream refuses.
    """
    name = f"JETMAP_CHECK_{subjects.new_id().replace('.', '_')}"
    if not await _may_remove(c, name):
        return None
    subject = f"jetmap.check.{name}"
    config = {key: value for key, value in wish.config.items() if key != "republish"}
    trial = Wish(
        config | {"name": name, "subjects": [f"{subject}.*"]},
        wish.copies,
        wish.places,
        wish.setting,
    )
    try:
        info = await make(c, name, trial, wait_for_peers=False)
        for number in range(consumers):
            request = consumer_config(name, f"check-{number}", f"{subject}.{number}")
            await c.api(f"CONSUMER.CREATE.{name}.check-{number}", request)
    except JetStreamError as error:
        raise error if error.advice else advised(error, f"a consumer of stream {name}") from error
    finally:
        await _remove(c, name)
    return config_text(str(wish.config["name"]), info["config"])


async def _may_remove(c: Broker, name: str) -> bool:
    try:
        await c.api(f"STREAM.DELETE.{name}")
    except Forbidden:
        return False
    except JetStreamError as error:
        return error.err_code == STREAM_NOT_FOUND
    return True


async def _remove(c: Broker, name: str) -> None:
    try:
        await c.api(f"STREAM.DELETE.{name}")
    except JetmapError:
        pass  # It was not created, or the cause is being raised already.
