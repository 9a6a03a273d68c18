"""Who we are to the broker, and how its address is shown."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from jetmap.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Auth:
    """Who we are to the broker: a user and password, or a token, or a credentials file.

    creds, tls_ca, tls_cert, tls_key: paths. TLS is used when a server asks for it, and
    insisted on when tls_ca or tls_cert is given or the address starts with ``tls:``.
    """

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    creds: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = field(default=None, repr=False)

    @property
    def wants_tls(self) -> bool:
        return bool(self.tls_ca or self.tls_cert)

    def ssl_context(self) -> ssl.SSLContext:
        """Raises ConfigurationError if a file is missing or is no certificate."""
        try:
            context = ssl.create_default_context(cafile=self.tls_ca)
            if self.tls_cert:
                context.load_cert_chain(self.tls_cert, self.tls_key)
        except OSError as error:
            files = ", ".join(f for f in (self.tls_ca, self.tls_cert, self.tls_key) if f)
            raise ConfigurationError([f"cannot use the TLS files {files}: {error}"]) from error
        return context


def without_secrets(server: str) -> str:
    """The address without a user, password or token in it."""
    parts = urlsplit(server if "://" in server else f"nats://{server}")
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
