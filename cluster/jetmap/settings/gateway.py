"""The settings of the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from .kinds import (
    LineCount,
    LoginSeconds,
    Origins,
    Port,
    ReadableFile,
    RootPath,
    Seconds,
    Secret,
    WordList,
    read_secret,
)
from .metadata import Section, both, setting


@dataclass(frozen=True)
class GatewaySettings(Section):
    """The gateway's address, and the requests that it accepts."""

    title: ClassVar[str] = "The gateway"
    panel: ClassVar[str] = "Gateway"

    host: str = setting(
        "127.0.0.1",
        "The address on which it listens. Port 0: any free port. Beyond loopback it requires a "
        "token.",
        help="Address on which the gateway listens.",
        metavar="ADDRESS",
    )
    port: Port = setting(8000, help="Port of the gateway; 0: any free port.", metavar="PORT")
    token: Secret | None = setting(
        None, "The bearer token that requests must carry, or a file with it."
    )
    token_file: ReadableFile | None = setting(
        None,
        help="File with the bearer token that requests must carry.",
        metavar="FILE",
        secret=True,
    )
    allowed_hosts: WordList = setting(
        [],
        'Host headers to accept besides loopback\'s: ["jetmap.example.org"]. If this is empty and '
        "host is not loopback, any is accepted: then the token protects.",
        help="Host headers to accept, comma-separated.",
        metavar="NAMES",
        flag="--allowed-host",
    )
    cors_origins: Origins = setting(
        [],
        "Origins whose pages may call it from a browser, each a scheme, a host and perhaps a port: "
        '["https://app.example.org"]; ["*"]: any.',
        help="Origins whose pages may call it, comma-separated.",
        metavar="ORIGINS",
        flag="--cors-origin",
    )
    root_path: RootPath = setting(
        "",
        'The prefix under which a proxy serves it: "/jetmap". A proxy may send it as '
        "X-Forwarded-Prefix instead. All addresses in answers then start with it, whether or not "
        "the proxy strips it.",
        help="Path prefix under which a proxy serves it.",
        metavar="PREFIX",
    )
    session_ttl: LoginSeconds = setting(
        43_200.0, "Seconds that a login in a browser lasts, 60 to 31,536,000."
    )
    debug: bool = setting(
        False, "Put tracebacks into errors.", help="Put tracebacks into errors.", panel="More"
    )
    scale_seconds: Seconds = setting(
        30.0,
        "Seconds in which all that waits should be done: by it `GET /scale` says how many cores "
        "are wanted.",
    )
    access_log: LineCount = setting(
        20,
        "Lines a second in the log for requests (level info), one each: method, path, status, "
        "reason and duration, never the query or headers. Further requests are only counted. "
        "0: none.",
    )

    def conflicts(self) -> Iterator[str]:
        if self.token is not None and self.token_file is not None:
            yield both("token", "token_file")

    @property
    def listens_beyond_loopback(self) -> bool:
        """Return whether other hosts can reach the gateway's address."""
        return not is_loopback(self.host)

    def read_token(self) -> str | None:
        """Return the gateway's bearer token, from the setting or its file."""
        return read_secret(self.token, self.token_file)


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a listener on ``host``."""
    if host == "localhost":
        return True
    import ipaddress  # For those who ask, as it is slow to import.

    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
