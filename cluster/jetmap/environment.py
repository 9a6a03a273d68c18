"""The environment of what runs beside us and is not ours: users' functions, the NATS server."""

from __future__ import annotations

from collections.abc import Mapping

PREFIX = "JETMAP_"


def without_ours(environment: Mapping[str, str]) -> dict[str, str]:
    """All but the ``JETMAP_...`` variables.

    Passwords and tokens are among them, addresses with a password in them, files that hold
    secrets, and misspelt variables of that kind. Their settings reach workers another way.
    """
    return {name: value for name, value in environment.items() if not name.startswith(PREFIX)}
