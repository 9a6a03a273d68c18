"""The broker's faults, as jetmap's errors."""

from __future__ import annotations

import re
import ssl
from typing import Any

import nats.errors

from jetmap.errors import BrokerUnreachable, JetmapError, TooLarge

from .answers import JetStreamError

# Rights that an account may lack, by the subject of JetStream's API that needs them.
RIGHTS = {
    "STREAM.CREATE": "create streams",
    "STREAM.INFO": "see streams",
    "STREAM.MSG": "read messages of streams",
    "STREAM.PURGE": "purge streams",
    "CONSUMER.CREATE": "create consumers",
    "CONSUMER.INFO": "see consumers",
}
# Error numbers of what may pass by itself: no suitable peers, temporarily unavailable.
PASSING = (10005, 10008)
# Advice for users, by NATS's error number.
ADVICE = {
    10002: "raise this account's JetStream limits",
    10005: "start the servers that are missing, or set {setting}replicas",
    10023: "raise the servers' JetStream limits",
    10026: "this account has as many consumers as it may: raise its max_consumers; each offer "
    "needs two",
    10027: "this account has as many streams as it may: raise its max_streams, or delete streams "
    "that nobody needs; a pool needs two, and three more for jobs",
    10028: "raise max_memory_store in the server's JetStream configuration, or this account's "
    "max_mem",
    10039: "enable JetStream for this account in the server's configuration (jetstream: enabled)",
    10047: "raise max_file_store in the server's JetStream configuration, or this account's "
    "max_file, or make room on its disk",
    10049: "make room on the server's disk, or let it write to its store_dir",
    10074: "this is a single server: set {setting}replicas to 1",
    10113: "lift max_bytes_required from this account",
    10120: "give this account a limit for that many copies",
    10122: "raise this account's memory_max_stream_bytes and disk_max_stream_bytes",
}


class NoResponders(BrokerUnreachable):
    """The error for a request on whose subject nobody listens."""


class DomainSilent(NoResponders):
    """The error for a JetStream domain whose servers do not answer.

    Its name may be wrong, or the leaf node through which it is reached is still connecting.
    """


class Forbidden(BrokerUnreachable):
    """The error for a subject that the server does not let this account use."""


class RefusedError(Exception):
    """A failure that trying again would not mend."""


def advised(
    error: JetStreamError, name: str, config: dict[str, Any] | None = None, setting: str = ""
) -> JetStreamError:
    """Add what was asked for, and what to do about it.

    config: the configuration of the stream to be made. setting: the prefix of its settings.
    """
    asked = f"for {name}"
    if config and "num_replicas" in config:
        size = config["max_bytes"]
        asked = f"cannot create stream {name} with storage {config['storage']}, replicas "
        asked += f"{config['num_replicas']}, max_bytes {size if size >= 0 else 'unlimited'}"
    advice = ADVICE.get(error.err_code, "").format(setting=setting)
    text = f"{asked}: {advice}" if advice else asked
    return JetStreamError(error.code, error.err_code, error.description, text)


def is_passing(error: JetmapError, *, clustered: bool) -> bool:
    """Return whether the broker may answer soon, as when a cluster elects a leader."""
    if isinstance(error, JetStreamError):
        return error.err_code in PASSING
    if isinstance(error, NoResponders):
        # A node that has just started does not know yet who answers.
        return clustered or isinstance(error, DomainSilent)
    return isinstance(error, BrokerUnreachable) and not isinstance(error, Forbidden)


def is_lasting(error: JetmapError) -> bool:
    """Return whether somebody must change the broker's configuration before this can work."""
    if isinstance(error, JetStreamError):
        return error.err_code in ADVICE and error.err_code not in PASSING
    return isinstance(error, Forbidden)


def refusal(error: Exception, where: str) -> RefusedError | None:
    """Return an error for the user if trying again would not help, else None."""
    text = str(error).lower()
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, ssl.SSLError):
        return RefusedError(
            f"TLS with the NATS server at {where} fails: {error}. "
            "Check nats_tls_ca (who signed the server) and nats_tls_cert."
        )
    if "authentication timeout" in text:
        return None  # This process was too busy to send its credentials in time.
    if "authorization" in text or "authentication" in text:
        return RefusedError(
            f"the NATS server at {where} refuses the credentials: check the user and password, "
            "token or credentials file"
        )
    if isinstance(error, FileNotFoundError | PermissionError) and error.filename:
        return RefusedError(f"cannot read {error.filename}: {error.strerror}")
    if "invalid" in text and "url" in text:
        return RefusedError(f"{where} is not a NATS address: write nats://host:4222")
    return None


class NotPermittedError(Exception):
    """The client's error for a subject that this account may not use.

    Attributes:
        subject: The subject of a publish, in lower case, as nats-py passes it on; empty for a
            subscription.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        found = re.search(r'publish to "([^"]+)"', text, re.I)
        self.subject = found[1].lower() if found else ""


def typed(error: Exception) -> Exception:
    """Give an error of nats-py that is only a text a type."""
    if isinstance(error, nats.errors.Error) and "permissions violation" in str(error).lower():
        return NotPermittedError(str(error))
    return error


def forbidden(subject: str, where: str) -> Forbidden:
    """Make the error that names the missing right, and what to do."""
    call = re.sub(r"^\$JS\.(?:[^.]+\.)?API\.", "", subject)
    right = next((text for name, text in RIGHTS.items() if call.startswith(f"{name}.")), None)
    lacks = f"does not let this account {right or 'publish to ' + subject}"
    needs = f"allow it to publish to {subject}" if right else "add that to its permissions"
    if call.startswith("STREAM.CREATE."):
        needs += ", or begin with an account that may: each stream is made once"
    return Forbidden(f"the NATS server at {where} {lacks}: {needs}")


def translated(
    error: Exception, subject: str, size: int, *, where: str, limit: int, refused: bool
) -> JetmapError:
    """Translate nats-py's error to jetmap's. refused: the server forbids the subject."""
    if isinstance(error, nats.errors.MaxPayloadError):
        return TooLarge(
            f"a message of {size} bytes is over the server's limit of {limit}",
            setting="max_payload",
            limit=limit,
            value=size,
        )
    if isinstance(error, nats.errors.NoRespondersError):
        return NoResponders(f"nobody answers on {subject} at {where}")
    if refused:
        return forbidden(subject, where)
    if isinstance(error, nats.errors.OutboundBufferLimitError):
        reason = "the connection is lost and too much waits to be sent"
    elif isinstance(error, TimeoutError):
        reason = f"no answer on {subject} in time"
    else:
        reason = str(error) or type(error).__name__
    return BrokerUnreachable(f"NATS at {where}: {reason}")
