"""The lines that `jetmap up` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from jetmap.cli import up
from jetmap.cli.installation import Installation
from jetmap.settings import Settings


class Started:
    """An installation that has started."""

    url = "http://127.0.0.1:8000"
    nats_url = "nats://127.0.0.1:4222"
    nats_port = 4222
    nats_user = "jetmap"
    store = Path("/state/jetmap/1")
    running = None

    def __init__(self, silent: int = 0) -> None:
        self.asked: list[float | None] = []
        self._silent = silent  # Waits that end before the gateway answers.

    async def answers(self, path: str, timeout: float | None) -> None:
        self.asked.append(timeout)
        if len(self.asked) <= self._silent:
            raise TimeoutError


def lines(**given: Any) -> str:
    installation = cast(Installation, Started())
    return "\n".join(up.greeting(installation, Settings.of({"tasks": ["tasks.py"], **given})))


def test_the_addresses_are_printed() -> None:
    found = lines()
    assert "http://127.0.0.1:8000/map/FUNCTION" in found
    assert "store     /state/jetmap/1" in found
    assert "on other hosts" not in found


def test_the_command_for_other_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "address_for_others", lambda host: "fd00::1")
    found = lines(nats_host="0.0.0.0", nats_password="secret", pool="blue")
    assert "secret" not in found
    assert "JETMAP_NATS_PASSWORD set to the same password" in found
    assert (
        "jetmap worker tasks.py --nats 'nats://[fd00::1]:4222' --nats-user jetmap --pool blue"
        in found
    )


@pytest.mark.anyio
@pytest.mark.parametrize("silent", [0, 1])
async def test_the_lines_are_printed_whenever_the_gateway_answers(
    silent: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They are written in one piece, so that no line of a log comes between them."""
    started, written = Started(silent), list[str]()
    monkeypatch.setattr("sys.stdout.write", written.append)
    settings = Settings.of({"tasks": ["tasks.py"]})
    await up._greet(cast(Installation, started), settings)
    assert started.asked == [up.SLOW_SECONDS, None][: silent + 1]
    assert "".join(written).count("\n") >= 5 and len(written) <= 2
    assert ("does not answer after 30 s" in caplog.text) == bool(silent)
