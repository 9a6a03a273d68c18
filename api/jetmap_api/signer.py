"""Login sessions and signatures that browsers send in place of the token.

Keys are derived from the token, so all gateways of one token accept what one of them has issued,
and nothing is valid any more once the token changes. Decisions only: no clock, no I/O.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from functools import cached_property, lru_cache

# Characters of a login session or a signature; anything longer is refused.
LONGEST = 200


class Signer:
    """Issues and checks login sessions and signed addresses.

    caller: the name under which the token's holder owns idempotency keys.
    """

    def __init__(self, token: str) -> None:
        self._token = token
        self.caller = caller_of(token.encode())

    @cached_property
    def cookie(self) -> str:
        """The cookie's name. It differs by token, because ports of a host share cookies."""
        return f"jetmap-{self._key('cookie').hex()[:12]}"

    def login_session(self, until: int) -> str:
        """Make a login session that ends at ``until``, in seconds since 1970."""
        text = f"{until}.{secrets.token_urlsafe(12)}"
        return f"{text}.{self._sign('session', text)}"

    def is_login_session(self, value: str, now: float) -> bool:
        """Return True if a gateway of this token issued the login session, and it has not ended."""
        text, _, signature = value.rpartition(".")
        known = _matches(signature, self._sign("session", text))
        return known and _is_later(text.partition(".")[0], now)

    def events(self, job: str, until: int) -> str:
        """Sign one job's events until then."""
        return f"{until}.{self._sign('events', f'{job}/{until}')}"

    def allows_events(self, job: str, signature: str, now: float) -> bool:
        """Return True if a signature is of this job's events, and its time is not over."""
        until, _, proof = signature.partition(".")
        known = _matches(proof, self._sign("events", f"{job}/{until}"))
        return known and _is_later(until, now)

    def _key(self, purpose: str) -> bytes:
        return hmac.digest(_stretched(self._token), f"jetmap {purpose} 1".encode(), "sha256")

    def _sign(self, purpose: str, text: str) -> str:
        mac = hmac.digest(self._key(purpose), text.encode("utf-8", "replace"), "sha256")
        return urlsafe_b64encode(mac).decode().rstrip("=")


def caller_of(token: bytes) -> str:
    """Return the name under which a token's holder owns idempotency keys."""
    return hashlib.sha256(token).hexdigest()[:32]


@lru_cache(maxsize=8)
def _stretched(token: str) -> bytes:
    """Derive a key at a cost of 50 ms, for an attacker may try tokens against a signature."""
    return hashlib.scrypt(token.encode(), salt=b"jetmap", n=1 << 14, r=8, p=1, dklen=32)


def _matches(given: str, right: str) -> bool:
    return len(given) <= LONGEST and hmac.compare_digest(given.encode(), right.encode())


def _is_later(text: str, now: float) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 12 and int(text) > now


class LoginLimiter:
    """Limit the failed logins of each address: ``most`` at once, then one in ``every`` seconds."""

    # Addresses that are remembered; the oldest are forgotten.
    KNOWN = 1024

    def __init__(self, most: int = 10, every: float = 6.0) -> None:
        self._most = most
        self._every = every
        self._free_at: dict[str, float] = {}  # When all of an address's attempts are free again.

    def wait(self, address: str, now: float) -> float:
        """Return the seconds until this address may try again."""
        free_at = self._free_at.get(address, now)
        return max(0.0, free_at - now - (self._most - 1) * self._every)

    def failed(self, address: str, now: float) -> None:
        """Count a failed login."""
        free_at = max(self._free_at.pop(address, now), now)
        self._free_at[address] = free_at + self._every
        if len(self._free_at) > self.KNOWN:
            del self._free_at[next(iter(self._free_at))]
