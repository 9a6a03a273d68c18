"""The broker's faults as jetmap's errors: text is read here, and nowhere else."""

from __future__ import annotations

import ssl

import nats.errors
import pytest

from jetmap.errors import BrokerUnreachable, JetmapError, TooLarge
from jetmap.nats.answers import JetStreamError
from jetmap.nats.errors import (
    DomainSilent,
    Forbidden,
    NoResponders,
    NotPermittedError,
    RefusedError,
    advised,
    forbidden,
    is_lasting,
    is_passing,
    refusal,
    translated,
    typed,
)


def refused(err_code: int, description: str = "") -> JetStreamError:
    return JetStreamError(400, err_code, description)


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ('nats: permissions violation for publish to "$js.api.x"', "$js.api.x"),
        ('nats: Permissions Violation for Publish to "Jetmap.Work"', "jetmap.work"),
        ('nats: permissions violation for subscription to "a.>"', ""),
    ],
)
def test_a_permission_violation_has_a_type_and_names_its_subject(text: str, subject: str) -> None:
    violation = typed(nats.errors.Error(text))
    assert isinstance(violation, NotPermittedError)
    assert (str(violation), violation.subject) == (text, subject)


@pytest.mark.parametrize(
    "error",
    [
        nats.errors.Error("nats: 'maximum subscriptions exceeded'"),
        nats.errors.StaleConnectionError(),
        ValueError("permissions violation"),
    ],
)
def test_other_errors_stay_as_they_are(error: Exception) -> None:
    assert typed(error) is error


def test_advice_names_the_stream_and_its_settings() -> None:
    config = {"num_replicas": 3, "max_bytes": -1, "storage": "file"}
    error = advised(refused(10074, "replicas > 1"), "JOBS", config, setting="job_")
    assert str(error) == (
        "JetStream refuses: replicas > 1 (error 10074); cannot create stream JOBS with storage "
        "file, replicas 3, max_bytes unlimited: this is a single server: set job_replicas to 1"
    )
    assert advised(refused(1), "JOBS").advice == "for JOBS"


@pytest.mark.parametrize(
    ("error", "clustered", "passing", "lasting"),
    [
        (refused(10008), False, True, False),
        (refused(10005), True, True, False),
        (refused(10028), False, False, True),
        (refused(10059), False, False, False),
        (NoResponders(""), True, True, False),
        (NoResponders(""), False, False, False),
        (DomainSilent(""), False, True, False),
        (BrokerUnreachable(""), False, True, False),
        (Forbidden(""), True, False, True),
        (JetmapError(""), True, False, False),
    ],
)
def test_faults_that_pass_and_faults_that_last(
    error: JetmapError, clustered: bool, passing: bool, lasting: bool
) -> None:
    assert is_passing(error, clustered=clustered) == passing
    assert is_lasting(error) == lasting


def test_refusals_that_trying_again_would_not_mend() -> None:
    kept = RefusedError("as it is")
    assert refusal(kept, "w") is kept
    missing = FileNotFoundError(2, "No such file or directory", "/creds")
    expected = {
        ssl.SSLError("certificate verify failed"): "TLS with the NATS server at w fails",
        nats.errors.AuthorizationError(): "w refuses the credentials",
        missing: "cannot read /creds: No such file or directory",
        nats.errors.Error("nats: invalid connect url option"): "w is not a NATS address",
    }
    for error, text in expected.items():
        refused = refusal(error, "w")
        assert refused is not None and text in str(refused)
    assert refusal(ConnectionRefusedError(), "w") is None
    assert refusal(nats.errors.NoServersError(), "w") is None
    # The credentials came too late, because this process was busy: they may be right.
    assert refusal(nats.errors.Error("nats: 'Authentication Timeout'"), "w") is None


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("$JS.API.STREAM.INFO.X", "does not let this account see streams: allow it to publish to"),
        ("$JS.hub.API.STREAM.PURGE.X", "does not let this account purge streams"),
        ("jetmap.work.a", "does not let this account publish to jetmap.work.a: add that to its"),
        ("$JS.API.STREAM.CREATE.X", "or begin with an account that may: each stream is made once"),
    ],
)
def test_a_missing_right_is_named(subject: str, text: str) -> None:
    assert text in str(forbidden(subject, "w"))


def test_errors_of_the_client_become_ours() -> None:
    def of(error: Exception, *, refused: bool = False) -> JetmapError:
        return translated(error, "s", 7, where="w", limit=5, refused=refused)

    large = of(nats.errors.MaxPayloadError())
    assert isinstance(large, TooLarge) and (large.limit, large.value) == (5, 7)
    assert isinstance(of(nats.errors.NoRespondersError()), NoResponders)
    assert isinstance(of(nats.errors.TimeoutError(), refused=True), Forbidden)
    assert "no answer on s in time" in str(of(nats.errors.TimeoutError()))
    assert "too much waits to be sent" in str(of(nats.errors.OutboundBufferLimitError()))
    assert str(of(nats.errors.Error())).startswith("NATS at w: ")
