"""Where the gateway listens."""

from __future__ import annotations

import errno
import socket

from jetmap.errors import ConfigurationError
from jetmap.settings import Settings, is_loopback

BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigurationError if the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=BACKLOG)
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            problem = f"{host}:{port} is taken: end what listens there, or give --port 0 for any"
        else:
            problem = f"--host {host} --port {port}: {exc.strerror or exc}"
        raise ConfigurationError([problem]) from exc


def url_of(listener: socket.socket) -> str:
    """The address on this machine of what listens there."""
    return local_url("http", *listener.getsockname()[:2])


def local_url(scheme: str, host: str, port: int) -> str:
    """An address that this machine can reach: every interface means loopback."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def address_for_others(host: str) -> str:
    """The address under which other hosts reach what listens on ``host``."""
    if host not in ("0.0.0.0", "::"):
        return host
    family = socket.AF_INET6 if host == "::" else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: this only asks the kernel which interface it would take.
            probe.connect(("2001:db8::1" if host == "::" else "192.0.2.1", 9))
            found = str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
    return socket.gethostname() if is_loopback(found) else found


def gateway_problems(settings: Settings) -> list[str]:
    """What makes it unsafe to listen there."""
    if settings.gateway.listens_beyond_loopback and settings.gateway.read_token() is None:
        return [
            f"--host {settings.gateway.host} can be reached from other hosts, so requests must "
            "show a token: write one into a file (openssl rand -hex 24 > token) and give "
            "--token-file token, or set JETMAP_TOKEN"
        ]
    return []


def server_problems(settings: Settings) -> list[str]:
    """What makes it unsafe for ``up`` to have its NATS server listen there."""
    if not is_loopback(settings.server.nats_host) and settings.broker.read_nats_password() is None:
        return [
            f"--nats-host {settings.server.nats_host} can be reached from other hosts, which "
            "need a password: write one into a file (openssl rand -hex 24 > nats-password) and "
            "give --nats-password-file nats-password, or set JETMAP_NATS_PASSWORD"
        ]
    return []
