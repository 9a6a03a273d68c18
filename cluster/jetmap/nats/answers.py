"""JetStream's answers: decoded, or raised as its refusals."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

import msgspec

from jetmap.errors import BrokerRefused

STREAM_FULL = 10077
NO_DIRECTORY = 10049  # A stream's directory could not be made, mostly because the disk is full.
# Error numbers of a lack of room: in the account, the server, its memory or disk, or the stream.
NO_ROOM = frozenset((10002, 10023, 10028, 10047, NO_DIRECTORY, STREAM_FULL))


class JetStreamError(BrokerRefused):
    """A request that JetStream refused.

    code: the status, as in HTTP. err_code: NATS's own number. advice: what was asked for, and what
    to do.
    """

    def __init__(self, code: int, err_code: int, description: str, advice: str = "") -> None:
        super().__init__(code, err_code, description, advice)
        self.code = code
        self.err_code = err_code
        self.description = description
        self.advice = advice

    def __str__(self) -> str:
        said = f"JetStream refuses: {self.description} (error {self.err_code})"
        return f"{said}; {self.advice}" if self.advice else said


def checked(answer: bytes) -> dict[str, Any]:
    """Decode an answer of JetStream. Raises JetStreamError if it is a refusal."""
    decoded: dict[str, Any] = msgspec.json.decode(answer)
    error = decoded.get("error")
    if error:
        raise JetStreamError(
            error.get("code", 0), error.get("err_code", 0), error.get("description", "")
        )
    return decoded


class Published(Enum):
    """The fate of a message that was published to a stream with one message a subject."""

    STORED = auto()
    THERE = auto()  # It was refused, because the stream has one of its subject: it is there.
    REFUSED = auto()  # Or nobody has answered.


def fate_of(answer: bytes) -> Published:
    """Read a stream's answer to a publish; empty: nobody answers."""
    if not answer:
        return Published.REFUSED
    try:
        checked(answer)
    except JetStreamError as error:
        return Published.THERE if holds_subject(error) else Published.REFUSED
    return Published.STORED


def holds_subject(error: JetStreamError) -> bool:
    """Return whether the stream refuses a message because it has one of the same subject.

    The server's number for that is the one of a full stream; only its text differs.
    """
    return error.err_code == STREAM_FULL and "per subject" in error.description


def lacks_room(error: JetStreamError) -> bool:
    """Return whether the broker has no room for a message."""
    return error.err_code in NO_ROOM or is_disk_full(error)


def is_disk_full(error: JetStreamError) -> bool:
    """Return whether the disk is full, or the share of it that the server's user has.

    The server passes on the system's text under a number that says nothing of it.
    """
    return "no space left" in error.description or "quota exceeded" in error.description
