"""Sessions and signatures are bound to a token, a purpose and a time."""

from __future__ import annotations

from jetmap_api.sessions import LONGEST, Attempts, Signer, caller_of


def test_a_session_ends_and_belongs_to_its_token() -> None:
    session = Signer("t").session(100)
    assert Signer("t").is_session(session, 99.5)
    assert not Signer("t").is_session(session, 100) and not Signer("x").is_session(session, 1)
    assert not Signer("t").is_session("", 1) and not Signer("t").is_session("9" * (LONGEST + 1), 1)


def test_a_signature_is_of_one_job() -> None:
    signer = Signer("t")
    signature = signer.events("j", 100)
    assert signer.allows_events("j", signature, 1) and not signer.allows_events("k", signature, 1)
    assert not signer.is_session(signature, 1)
    assert not signer.allows_events("j", signature.replace("100", "101"), 1)


def test_names_depend_on_the_token_only() -> None:
    assert Signer("t").cookie == Signer("t").cookie != Signer("x").cookie
    assert Signer("t").caller == caller_of(b"t") and len(caller_of(b"t")) == 32


def test_attempts_become_free_with_time() -> None:
    attempts = Attempts(most=2, every=5.0)
    attempts.failed("a", 0.0)
    assert attempts.wait("a", 0.0) == 0
    attempts.failed("a", 0.0)
    assert attempts.wait("a", 0.0) == 5 and attempts.wait("a", 5.0) == 0
