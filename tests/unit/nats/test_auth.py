"""Credentials, and addresses without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from jetmap.errors import ConfigurationError
from jetmap.nats.auth import Auth, without_secrets
from jetmap.settings import Settings

SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"


@pytest.mark.parametrize(
    ("server", "shown"),
    [
        ("nats://user:secret@host:4222", "nats://host:4222"),
        ("nats://token@host", "nats://host"),
        ("user:p@ss@host:4222", "nats://host:4222"),
        ("tls://host:4222", "tls://host:4222"),
        ("host", "nats://host"),
    ],
)
def test_an_address_is_shown_without_secrets(server: str, shown: str) -> None:
    assert without_secrets(server) == shown


def test_secrets_do_not_appear_in_a_repr() -> None:
    shown = repr(Auth(user="u", password="secret", token="secret", tls_key="secret"))
    assert "secret" not in shown and "user='u'" in shown


def test_settings_name_the_credentials(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")
    password.chmod(0o600)
    authority = tmp_path / "ca.pem"
    authority.write_text("")
    settings = Settings.load(
        nats_user="u",
        nats_password_file=str(password),
        nats_js_domain="hub",
        nats_tls_ca=str(authority),
    )
    auth = Auth.of(settings)
    assert (auth.user, auth.password, auth.domain) == ("u", "secret", "hub")
    assert auth.wants_tls and not Auth().wants_tls and Auth(tls_cert="c").wants_tls


def test_an_nkey_file_holds_an_undamaged_seed(tmp_path: Path) -> None:
    assert Auth().nkey_seed() is None
    path = tmp_path / "seed"
    auth = Auth(nkey=str(path))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        auth.nkey_seed()
    path.write_text(f"-----BEGIN USER NKEY SEED-----\n{SEED}\n")
    assert auth.nkey_seed() == SEED
    path.write_text("no seed")
    with pytest.raises(ConfigurationError, match="holds no user's nkey seed"):
        auth.nkey_seed()
    path.write_text(SEED[:-1] + ("A" if SEED[-1] != "A" else "B"))
    with pytest.raises(ConfigurationError, match="is damaged: copy it again"):
        auth.nkey_seed()


def test_a_credentials_file_has_its_two_parts(tmp_path: Path) -> None:
    path = tmp_path / "creds"
    auth = Auth(creds=str(path))
    Auth().check_creds()
    path.write_text("-----BEGIN NATS USER JWT-----\n-----BEGIN USER NKEY SEED-----\n")
    auth.check_creds()
    path.write_text("-----BEGIN NATS USER JWT-----\n")
    with pytest.raises(ConfigurationError, match="lacks the line BEGIN USER NKEY SEED"):
        auth.check_creds()
    path.write_text(SEED)
    with pytest.raises(ConfigurationError, match="name it in nats_nkey_file instead"):
        auth.check_creds()


def test_tls_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "ca.pem")
    with pytest.raises(ConfigurationError, match=f"cannot use the TLS files {missing}"):
        Auth(tls_ca=missing).ssl_context()
    assert Auth().ssl_context().check_hostname
