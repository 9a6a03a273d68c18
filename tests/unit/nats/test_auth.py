"""Credentials for the broker: each file is checked, and no address shows a secret."""

from __future__ import annotations

from pathlib import Path

import nkeys
import pytest

from jetmap.errors import ConfigurationError
from jetmap.nats.auth import Auth, without_secrets
from jetmap.settings import Settings

SEED = nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER).decode()
CREDS = (
    "-----BEGIN NATS USER JWT-----\nx\n------END NATS USER JWT------\n"
    f"-----BEGIN USER NKEY SEED-----\n{SEED}\n------END USER NKEY SEED------\n"
)


@pytest.mark.parametrize(
    ("server", "shown"),
    [
        ("nats://me:secret@host:4222", "nats://host:4222"),
        ("tls://t0ken@host", "tls://host"),
        ("host:4222", "nats://host:4222"),
        ("a:b@[::1]:4222", "nats://[::1]:4222"),
    ],
)
def test_an_address_is_shown_without_its_secrets(server: str, shown: str) -> None:
    assert without_secrets(server) == shown


def test_no_secret_is_in_the_representation() -> None:
    shown = repr(Auth(user="me", password="s3cret", token="t0ken", tls_key="k3y"))
    assert "me" in shown and not any(secret in shown for secret in ("s3cret", "t0ken", "k3y"))


def test_settings_name_the_credentials(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hidden\n")
    auth = Auth.of(
        Settings(
            nats_user="me", nats_password_file=str(tmp_path / "password"), nats_js_domain="hub"
        )
    )
    assert (auth.user, auth.password, auth.domain, auth.wants_tls) == ("me", "hidden", "hub", False)
    assert Auth(tls_ca="ca.pem").wants_tls and Auth(tls_cert="cert.pem").wants_tls


@pytest.mark.parametrize("text", [SEED, f"# ours\n{SEED}\n"])
def test_a_seed_is_found_in_its_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "nkey").write_text(text)
    assert Auth(nkey=str(tmp_path / "nkey")).nkey_seed() == SEED
    assert Auth().nkey_seed() is None


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "holds no user's nkey seed"), (f"{SEED[:-2]}AA", "is damaged: copy it again")],
)
def test_a_file_without_a_good_seed_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "nkey").write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        Auth(nkey=str(tmp_path / "nkey")).nkey_seed()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SEED, "name it in nats_nkey_file instead"),
        (CREDS.replace("NATS USER JWT", "SOMETHING"), "lacks the line BEGIN NATS USER JWT"),
        ("nothing", "lacks the line BEGIN"),
    ],
)
def test_a_file_that_holds_no_credentials_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "creds").write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        Auth(creds=str(tmp_path / "creds")).check_creds()
    (tmp_path / "creds").write_text(CREDS)
    Auth(creds=str(tmp_path / "creds")).check_creds()
    Auth().check_creds()


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    for check in (
        lambda: Auth(creds=gone).check_creds(),
        lambda: Auth(nkey=gone).nkey_seed(),
        lambda: Auth(tls_cert=gone).ssl_context(),
    ):
        with pytest.raises(ConfigurationError, match="gone"):
            check()
