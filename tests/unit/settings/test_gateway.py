"""The settings of the gateway."""

from __future__ import annotations

from pathlib import Path

import pytest

from jetmap.errors import ConfigurationError
from jetmap.settings import GatewaySettings, is_loopback


def test_secrets_are_read_from_their_files(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("\ufeffs3cret\n", encoding="utf-8")
    assert GatewaySettings(token_file=str(file)).read_token() == "s3cret"
    file.write_text("\n")
    with pytest.raises(ConfigurationError, match="is empty: write the secret into it"):
        GatewaySettings(token_file=str(file)).read_token()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *((host, True) for host in ("127.0.0.1", "::1", "[::1]", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "192.0.2.1", "host.example")),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
