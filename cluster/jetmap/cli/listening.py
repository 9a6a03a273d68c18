"""Addresses: the gateway's socket, URLs, and whether listening there is safe."""

from __future__ import annotations

import errno
import socket

from jetmap.errors import ConfigurationError
from jetmap.settings import Settings, is_loopback

BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket. Raises ConfigurationError if the address cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=BACKLOG)
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            problem = (
                f"{host}:{port} is taken: stop the program that listens there, or give --port 0 "
                "for any free port"
            )
        else:
            problem = f"--host {host} --port {port}: {exc.strerror or exc}"
        raise ConfigurationError([problem]) from exc


def url_of(listener: socket.socket) -> str:
    """Return the URL of a listener on this machine."""
    return local_url("http", *listener.getsockname()[:2])


def local_url(scheme: str, host: str, port: int) -> str:
    """Return a URL that this machine can reach; an address for all interfaces becomes loopback."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def address_for_others(host: str) -> str:
    """Return the address at which other hosts reach a listener on ``host``."""
    if host not in ("0.0.0.0", "::"):
        return host
    family = socket.AF_INET6 if host == "::" else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            # This sends nothing: it asks the kernel which interface it would use.
            probe.connect(("2001:db8::1" if host == "::" else "192.0.2.1", 9))
            found = str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
    return socket.gethostname() if is_loopback(found) else found


def gateway_problems(settings: Settings) -> list[str]:
    """List why it would be unsafe for the gateway to listen at its address."""
    if settings.gateway.listens_beyond_loopback and settings.gateway.read_token() is None:
        return [
            f"--host {settings.gateway.host} can be reached from other hosts, so requests must "
            "carry a token: write one into a file (openssl rand -hex 24 > token) and give "
            "--token-file token, or set JETMAP_TOKEN"
        ]
    return []


def server_problems(settings: Settings) -> list[str]:
    """List why it would be unsafe for the NATS server of ``up`` to listen at its address."""
    if not is_loopback(settings.server.nats_host) and settings.broker.read_nats_password() is None:
        return [
            f"--nats-host {settings.server.nats_host} can be reached from other hosts, which "
            "need a password: write one into a file (openssl rand -hex 24 > nats-password) and "
            "give --nats-password-file nats-password, or set JETMAP_NATS_PASSWORD"
        ]
    return []
