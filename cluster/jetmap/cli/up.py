"""``jetmap up``: run everything on this machine, until a signal."""

from __future__ import annotations

import asyncio
import logging
import shlex

from jetmap.background import beside
from jetmap.embedded.running import Running, already_runs, find_running
from jetmap.errors import ConfigurationError
from jetmap.machine import working_directory
from jetmap.settings import Settings, is_loopback

from .installation import FAREWELL, Installation
from .listening import address_for_others, gateway_problems, server_problems
from .options import GATEWAY, SERVER, WORKER, takes
from .signals import LEAVE_SECONDS, Stop, StopRequested, run
from .store import hold_store

SLOW_SECONDS = 30.0  # Seconds that the gateway may take to answer before a warning.

logger = logging.getLogger(__name__)


@takes("tasks", *WORKER, *GATEWAY, *SERVER, "pool", serves=True)
def up(settings: Settings) -> None:
    """Run everything on this machine: NATS, a worker per core, the gateway.

    Runs in the foreground and restarts what crashes. After SIGTERM or Ctrl-C the gateway finishes
    its requests and the workers their chunks (--grace seconds each), then the server ends. A second
    signal ends all of them at once. `jetmap map`, `status` and `api` in the same directory find it
    by themselves.

    Jobs are kept in the directory --store; by default each working directory and pool has one in
    your state directory ($XDG_STATE_HOME, else ~/.local/state).

    Example: jetmap up tasks.py
    """
    problems = gateway_problems(settings) + server_problems(settings)
    problems += second_up_problems(settings)
    if not settings.workers.tasks:
        problems.insert(0, "name the TASKS to run: jetmap up tasks.py")
    if problems:
        raise ConfigurationError(problems)
    patience = 2 * (settings.workers.grace + FAREWELL) + LEAVE_SECONDS
    run(serve(settings), patience=patience)


def second_up_problems(settings: Settings) -> list[str]:
    """List why a second one must not start: commands would find it instead of the first."""
    if (first := find_running(working_directory(), settings.broker.pool)) is None:
        return []
    return [already_runs(first)]


async def serve(settings: Settings) -> None:
    """Run until a signal, or until a part cannot be started."""
    stop = Stop()
    store = await asyncio.to_thread(hold_store, settings)
    installation = Installation(settings, register=True, store=store)
    try:
        await stop.cancel_on_request(installation.start())
        async with beside(_greet(installation, settings)):
            await installation.until(stop.requested)
    except StopRequested:
        pass  # Whatever has started is stopped below.
    finally:
        await installation.stop(stop.forced)


async def _greet(installation: Installation, settings: Settings) -> None:
    """Print the addresses once the gateway answers, however long that takes."""
    try:
        await installation.answers("/healthz", SLOW_SECONDS)
    except TimeoutError:
        logger.warning(
            "the gateway at %s does not answer after %g s; if lines above say why, mend that, "
            "otherwise wait",
            installation.url,
            SLOW_SECONDS,
        )
        await installation.answers("/healthz", None)
    # In one piece: the parts log to the same terminal.
    print("\n".join(greeting(installation, settings)), flush=True)  # noqa: T201


def greeting(installation: Installation, settings: Settings) -> list[str]:
    """Return the lines to print once the gateway answers."""
    lines = [
        f"gateway   {installation.url}/map/FUNCTION",
        f"dashboard {installation.url}/ui",
        f"docs      {installation.url}/docs",
        f"broker    {installation.nats_url}",
        f"store     {installation.store or 'none: no jobs'}",
    ]
    if not is_loopback(settings.server.nats_host):
        same = "the same password file"
        if settings.broker.nats_password_file is None:
            same = "JETMAP_NATS_PASSWORD set to the same password"
        lines += ["", f"on other hosts, with the same tasks and {same}:"]
        lines += [f"  {worker_command(installation, settings)}"]
    if installation.running is not None:
        lines += ["", "Cluster() in this directory joins it; for other directories, as this user:"]
        lines += [f"  {exports(installation.running)}"]
    return lines


def exports(running: Running) -> str:
    """Return a shell command that makes it known to this user's programs in other directories."""
    variables = {
        "NATS_URL": running.url,
        "NATS_USER": running.user,
        "NATS_PASSWORD_FILE": str(running.password_file),
    }
    if running.pool != "default":
        variables["POOL"] = running.pool
    return f"export {' '.join(f'JETMAP_{k}={shlex.quote(v)}' for k, v in variables.items())}"


def worker_command(installation: Installation, settings: Settings) -> str:
    """Return the command by which another host joins this pool."""
    host = address_for_others(settings.server.nats_host)
    host = f"[{host}]" if ":" in host else host
    words = ["jetmap", "worker", *settings.workers.tasks]
    words += ["--nats", f"nats://{host}:{installation.nats_port}"]
    words += ["--nats-user", installation.nats_user]
    if settings.broker.nats_password_file is not None:
        words += ["--nats-password-file", settings.broker.nats_password_file]
    if settings.broker.pool != "default":
        words += ["--pool", settings.broker.pool]
    return shlex.join(words)
