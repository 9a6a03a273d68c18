"""Login sessions and signatures: one token's gateways accept them, and only for what they are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jetmap_api.signer import LoginLimiter, Signer

TOKEN = "s3cret"


def test_gateways_of_one_token_accept_what_another_has_issued() -> None:
    one, other, foreign = Signer(TOKEN), Signer(TOKEN), Signer("another")
    session, signature = one.login_session(100), one.events("j1", 100)
    assert other.is_login_session(session, 99) and other.allows_events("j1", signature, 99)
    assert not other.is_login_session(session, 100)
    assert not other.allows_events("j1", signature, 100)
    assert not foreign.is_login_session(session, 99)
    assert not foreign.allows_events("j1", signature, 99)
    assert one.cookie == other.cookie != foreign.cookie
    assert one.login_session(100) != session
    assert TOKEN not in session + signature + one.cookie


def test_nothing_counts_for_anything_else() -> None:
    signer = Signer(TOKEN)
    session, signature = signer.login_session(100), signer.events("j1", 100)
    assert not signer.allows_events("j2", signature, 1)
    assert not signer.allows_events("j1", session, 1)
    assert not signer.is_login_session(signature, 1)
    # The parts of a signed text cannot be moved from one to the other.
    assert signer.events("a/1", 2) != signer.events("a", 12)


@given(st.text(max_size=300), st.integers(0, 80))
def test_a_changed_session_is_none(text: str, at: int) -> None:
    signer = Signer(TOKEN)
    session = signer.login_session(10**9)
    changed = session[:at] + text + session[at + 1 :]
    assert signer.is_login_session(changed, 1) == (changed == session)
    assert not signer.is_login_session(text, 1)
    assert not signer.allows_events(text, text, 1)


def test_failed_logins_are_bounded_for_each_address() -> None:
    attempts = LoginLimiter(most=3, every=10.0)
    for _ in range(3):
        assert attempts.wait("a", 0.0) == 0
        attempts.failed("a", 0.0)
    assert attempts.wait("a", 0.0) == 10
    assert attempts.wait("b", 0.0) == 0
    assert attempts.wait("a", 10.0) == 0
    attempts.failed("a", 10.0)
    assert attempts.wait("a", 10.0) == 10
    assert attempts.wait("a", 1000.0) == 0
    for number in range(5000):
        attempts.failed(str(number), 0.0)
    assert len(attempts._free_at) == LoginLimiter.KNOWN
