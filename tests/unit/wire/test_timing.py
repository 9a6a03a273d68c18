"""The protocol's times hold together."""

from __future__ import annotations

from jetmap.wire.timing import (
    ACK_WAIT,
    BEAT,
    CLUSTER_PARK_SECONDS,
    GONE_AFTER,
    GONE_KEPT,
    HEARTBEAT_SECONDS,
    HELD,
    INACTIVE,
    JOB_BEAT_SECONDS,
    JOB_LEASE_SECONDS,
    LOOK,
    PARK_SECONDS,
    PATIENCE,
    RECLAIM,
    RENEW_SECONDS,
    SILENCE,
    SUSPECT_SECONDS,
    UNCONFIRMED_SECONDS,
)


def test_two_lost_messages_make_nobody_gone() -> None:
    assert GONE_AFTER > 3 * BEAT, "an agent may lose two announcements in a row"
    assert SILENCE > 3 * BEAT, "a dispatcher may lose two answers in a row"
    # An agent that has idled begins to renew with its next beat.
    assert max(BEAT, RENEW_SECONDS) + RENEW_SECONDS < ACK_WAIT, "one renewal may be lost"
    assert JOB_LEASE_SECONDS > 3 * JOB_BEAT_SECONDS, "a dispatcher may miss two of its own looks"
    assert CLUSTER_PARK_SECONDS > 2 * HEARTBEAT_SECONDS, "a pull hears of the broker while it waits"


def test_a_chunk_is_sent_again_only_when_its_claims_are_missing() -> None:
    assert PATIENCE > 2 * BEAT
    assert UNCONFIRMED_SECONDS < BEAT, "the broker's word comes before a claim would"
    assert RECLAIM < PATIENCE


def test_whoever_lost_a_chunk_lets_go_before_another_computes_it() -> None:
    assert SILENCE + LOOK < ACK_WAIT
    assert GONE_KEPT >= ACK_WAIT, "what the broker delivers again is still known to be unwanted"


def test_a_vanished_agent_is_missed_before_what_it_held_is_forgotten() -> None:
    assert HELD > GONE_AFTER + 2 * BEAT
    assert HELD > ACK_WAIT
    assert SUSPECT_SECONDS > HELD, "a suspect is out until its agent would be missed"


def test_agents_and_hosts_that_die_cost_less_than_twenty_seconds() -> None:
    assert GONE_AFTER + ACK_WAIT < 20
    assert PATIENCE + HELD < 20


def test_consumers_outlive_agents_that_restart() -> None:
    assert INACTIVE > 5 * (ACK_WAIT + PARK_SECONDS)
