"""Credentials for the broker, and its address without them."""

from __future__ import annotations

import base64
import binascii
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from jetmap.errors import ConfigurationError
from jetmap.settings import Settings

_SEED = re.compile(r"\bSU[A-Z2-7]{56}\b")
_CREDS = ("NATS USER JWT", "USER NKEY SEED")


@dataclass(frozen=True, slots=True)
class Auth:
    """Credentials for the broker: a user and password, a token, a credentials file or an nkey.

    creds, nkey, tls_ca, tls_cert, tls_key: paths; the nkey file holds a user's seed. domain: the
    JetStream domain to use, if it is not the server's own. TLS is used when a server asks for it,
    and required if tls_ca or tls_cert is given or the address starts with ``tls:``.
    """

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    creds: str | None = None
    nkey: str | None = None
    domain: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, settings: Settings) -> Auth:
        """Read the credentials that the settings name.

        Raises ConfigurationError if one of their files cannot be read.
        """
        return cls(
            user=settings.broker.nats_user,
            password=settings.broker.read_nats_password(),
            token=settings.broker.read_nats_token(),
            creds=settings.broker.nats_creds,
            nkey=settings.broker.nats_nkey_file,
            domain=settings.broker.nats_js_domain,
            tls_ca=settings.broker.nats_tls_ca,
            tls_cert=settings.broker.nats_tls_cert,
            tls_key=settings.broker.nats_tls_key,
        )

    @property
    def wants_tls(self) -> bool:
        return bool(self.tls_ca or self.tls_cert)

    def nkey_seed(self) -> str | None:
        """Return the seed in the nkey file. Raises ConfigurationError if it holds none."""
        if self.nkey is None:
            return None
        found = _SEED.search(_read(self.nkey))
        if found is None:
            raise ConfigurationError(
                [
                    f"nats_nkey_file: {self.nkey} holds no user's nkey seed, a line of 58 letters "
                    "and digits that begins with SU (nk -gen user makes one)"
                ]
            )
        seed = found[0]
        raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
        if binascii.crc_hqx(raw[:-2], 0) != int.from_bytes(raw[-2:], "little"):
            raise ConfigurationError(
                [f"nats_nkey_file: the nkey seed in {self.nkey} is damaged: copy it again"]
            )
        return seed

    def check_creds(self) -> None:
        """Check the credentials file. Raises ConfigurationError if it holds no credentials."""
        if self.creds is None:
            return
        text = _read(self.creds)
        lacks = [part for part in _CREDS if part not in text]
        if not lacks:
            return
        if len(lacks) == len(_CREDS) and _SEED.search(text):
            advice = "it holds an nkey seed: name it in nats_nkey_file instead"
        else:
            advice = f"it lacks the line BEGIN {lacks[0]}: nsc generate creds makes such a file"
        raise ConfigurationError([f"nats_creds: {self.creds} is not a credentials file; {advice}"])

    def ssl_context(self) -> ssl.SSLContext:
        """Make the TLS context. Raises ConfigurationError if a file is missing or invalid."""
        try:
            context = ssl.create_default_context(cafile=self.tls_ca)
            if self.tls_cert:
                context.load_cert_chain(self.tls_cert, self.tls_key)
        except OSError as error:
            files = ", ".join(f for f in (self.tls_ca, self.tls_cert, self.tls_key) if f)
            raise ConfigurationError([f"cannot use the TLS files {files}: {error}"]) from error
        return context


def without_secrets(server: str) -> str:
    """Return the address without a user, password or token."""
    parts = urlsplit(server if "://" in server else f"nats://{server}")
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError([f"{path} cannot be read: {error}"]) from error
