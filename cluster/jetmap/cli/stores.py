"""Where ``jetmap up`` keeps its streams, and that only one server does so at a time."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

from jetmap.embedded.locks import take
from jetmap.errors import ConfigurationError
from jetmap.settings import Settings

logger = logging.getLogger(__name__)

NONE = "none"
RELEASE_SECONDS = 5.0  # In which the server of an `up` that was killed must have ended.


@dataclass
class Held:
    """A store that is this process's, and its server's, while the descriptor is open."""

    directory: Path
    descriptor: int

    def close(self) -> None:
        """Twice is harmless."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def hold(settings: Settings) -> Held | None:
    """The store of the settings, else this directory's own; None: there is none.

    Waits for the server of an ``up`` that was just killed. Raises ConfigurationError if the
    store that is asked for cannot be had; the default one is done without then.
    """
    if settings.server.store == NONE:
        return None
    if settings.server.store is not None:
        return _held(Path(settings.server.store).absolute(), RELEASE_SECONDS)
    try:
        directory = default_store(Path.cwd(), settings.broker.pool)
        found = _held(directory, RELEASE_SECONDS)
        _note(directory, settings.broker.pool)
    except ConfigurationError as error:
        logger.warning("%s: there will be no jobs", error)
        return None
    return found


def default_store(cwd: Path, pool: str) -> Path:
    """Of a working directory and pool, below $XDG_STATE_HOME or ~/.local/state.

    Raises ConfigurationError: this user has no home.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):  # noqa: PTH117  # else it is to be ignored, says the standard
        try:
            state = str(Path.home() / ".local" / "state")
        except RuntimeError as error:
            raise ConfigurationError(["this user has no home directory to keep jobs in"]) from error
    origin = os.fsencode(cwd.resolve()) + b"\0" + pool.encode()
    return Path(state) / "jetmap" / hashlib.sha256(origin).hexdigest()[:16]


def _held(directory: Path, patience: float) -> Held:
    deadline = time.monotonic() + patience
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        while (descriptor := take(directory / "jetmap.lock")) is None:
            if time.monotonic() >= deadline:
                raise ConfigurationError([f"the store {directory} is used by another `jetmap up`"])
            time.sleep(0.05)
    except FileExistsError as error:
        raise ConfigurationError([f"the store {directory} is a file: name a directory"]) from error
    except OSError as error:
        raise ConfigurationError(
            [f"the store {directory} cannot be used: {error.strerror}"]
        ) from error
    return Held(directory, descriptor)


def _note(directory: Path, pool: str) -> None:
    """For people who wonder what this directory is."""
    text = f"Jobs of `jetmap up` in {Path.cwd()}, pool {pool}. Remove it to forget them.\n"
    with contextlib.suppress(OSError):  # They will have to guess.
        (directory / "README").write_text(text, encoding="utf-8", errors="replace")
