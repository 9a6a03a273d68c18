"""The sections of the settings, and what must fit together in each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jetmap.errors import ConfigurationError
from jetmap.settings import (
    FIELDS,
    SECTIONS,
    BrokerSettings,
    GatewaySettings,
    Settings,
)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"nats_password": "a", "nats_password_file": __file__}, "are both set: keep one"),
        ({"nats_tls_cert": __file__}, "go together: set both or neither"),
        ({"chunk_min_seconds": 1, "chunk_seconds": 0.5}, "larger than chunk_seconds"),
        ({"token": "a", "token_file": __file__}, "token and token_file are both set"),
    ],
)
def test_settings_that_exclude_each_other(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Settings.load(**given)


def test_no_name_is_in_two_sections() -> None:
    names = [name for section in SECTIONS.values() for name in vars(section())]
    assert len(names) == len(set(names)) == len(FIELDS)


def test_secrets_are_read_from_their_files(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("\ufeffs3cret\n", encoding="utf-8")
    assert GatewaySettings(token_file=str(file)).read_token() == "s3cret"
    file.write_text("\n")
    with pytest.raises(ConfigurationError, match="is empty: write the secret into it"):
        GatewaySettings(token_file=str(file)).read_token()


def test_the_servers_of_a_list() -> None:
    assert BrokerSettings(nats_url="nats://a:1, nats://b:2").servers() == [
        "nats://a:1",
        "nats://b:2",
    ]
    assert BrokerSettings().servers() == []
