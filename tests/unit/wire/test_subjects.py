"""Names of subjects: the wildcards match what they are for, and ids are one token."""

from __future__ import annotations

import pytest

from jetmap.wire import subjects


def matches(pattern: str, subject: str) -> bool:
    """Match as NATS does."""
    wanted, tokens = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        tokens = tokens[: len(wanted) - 1] if len(tokens) >= len(wanted) else []
        wanted = wanted[:-1]
    return len(wanted) == len(tokens) and all(
        w in ("*", t) for w, t in zip(wanted, tokens, strict=True)
    )


def test_wildcards_match_the_work_that_they_are_for() -> None:
    chunk = subjects.work("p", "o", "express", "m", 3)
    assert matches(subjects.all_work("p"), chunk)
    assert matches(subjects.lane_work("p", "o", "express"), chunk)
    assert matches(subjects.map_work("p", "m"), chunk)
    assert matches(subjects.lane_work("p", "o", subjects.LOCAL), chunk), "all lanes of the offer"
    for other in (
        subjects.all_work("q"),
        subjects.lane_work("p", "o", "main"),
        subjects.lane_work("p", "o2", subjects.LOCAL),
        subjects.map_work("p", "m2"),
    ):
        assert not matches(other, chunk)
    assert matches(subjects.all_presence("p"), subjects.presence("p", "a"))
    assert matches(subjects.republished("p"), subjects.republished("p", "state.j"))


def test_a_map_has_its_shard_and_another_one_if_that_is_avoided() -> None:
    assert subjects.queue("p", "o", "m", ["p"]) == "p", "an offer without shards"
    offer = subjects.sharded("o", 3)
    shards = subjects.queues("p", offer)
    assert shards == ["p=1", "p=2", "p=3"] and all(subjects.is_shard(shard) for shard in shards)
    maps = [f"d_{number}" for number in range(300)]
    chosen = {name: subjects.queue("p", offer, name) for name in maps}
    assert all(60 < list(chosen.values()).count(shard) < 140 for shard in shards)
    for name, shard in chosen.items():
        chunk = subjects.work(shard, offer, "main", name, 1)
        assert subjects.queue_of(chunk) == shard
        assert not matches(subjects.all_work("p"), chunk), "its stream is another one"
        other = subjects.queue("p", offer, name, [shard])
        assert other in shards and other != shard
        assert subjects.queue("p", offer, name, shards) == shard
    moved = {subjects.queue("p", offer, name, ["p=1"]) for name in maps if chosen[name] == "p=1"}
    assert moved == {"p=2", "p=3"}


def test_an_id_is_one_token() -> None:
    ids = {subjects.new_id() for _ in range(1_000)}
    assert len(ids) == 1_000 and all(subjects.TOKEN.fullmatch(one) for one in ids)
    assert not any(subjects.TOKEN.fullmatch(bad) for bad in ("", "a.b", "a b", "*", ">", "ä"))


def test_the_map_of_a_job_names_its_job() -> None:
    map = subjects.job_map("job-1", 7)
    assert subjects.job_of(map) == "job-1" and "." not in map
    assert subjects.job_of(subjects.new_id()) is None


@pytest.mark.parametrize(
    ("subject", "kind"),
    [
        (subjects.job_input("p", "j"), "INPUT"),
        (subjects.job_outcomes("p", "j"), "OUTCOMES"),
        (subjects.job_state("p", "j"), "JOBS"),
        (subjects.job_key("p", "k"), "JOBS"),
        (subjects.lease("p", "d"), "JOBS"),
    ],
)
def test_each_subject_of_jobs_has_its_stream(subject: str, kind: str) -> None:
    assert subjects.kind_of(subject) == kind
