"""Dispatchers that know of each other by a few notices."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hypotheses import examples
from jetmap.dispatch.company import ENOUGH, KEPT_SECONDS, SPEAK_SECONDS, Company


def test_nobody_is_there_until_a_notice_comes_and_for_a_while_after_it() -> None:
    company = Company("me")
    assert company.is_alone(0.0)
    assert company.on_heard("b", 1.0)
    assert not company.is_alone(1.0 + KEPT_SECONDS / 2)
    assert not company.on_heard("b", 1.0 + KEPT_SECONDS / 2), "it is known already"
    assert company.is_alone(1.0 + 2 * KEPT_SECONDS)
    assert company.on_heard("b", 1.0 + 2 * KEPT_SECONDS)


def test_a_dispatcher_speaks_now_and_then_and_answers_newcomers() -> None:
    company = Company("me")
    assert company.must_speak(10.0)
    assert not company.must_speak(10.0 + SPEAK_SECONDS / 2)
    assert company.must_speak(10.0 + SPEAK_SECONDS)
    company.on_heard("b", 10.1 + SPEAK_SECONDS)
    assert company.must_speak(10.1 + SPEAK_SECONDS), "b may not know of it"
    assert not company.must_speak(10.2 + SPEAK_SECONDS)


def test_those_that_are_gone_are_forgotten() -> None:
    company = Company("me")
    for number in range(1000):
        company.on_heard(str(number), float(number))
        company.is_alone(float(number))
        assert len(company._heard) <= KEPT_SECONDS


def test_many_dispatchers_need_not_all_speak() -> None:
    company = Company("me")
    for number in range(ENOUGH):
        company.on_heard(str(number), 20.0)
    assert not company.must_speak(20.0)
    assert company.must_speak(20.0 + SPEAK_SECONDS), "the others have fallen silent"


@examples(100)
@given(st.integers(2, 8), st.integers(0, 20), st.integers(0, 9))
def test_a_newcomer_of_a_pool_of_many_is_answered_at_once_by_few(
    size: int, at: int, name: int
) -> None:
    companies = {str(number): Company(str(number)) for number in range(1, size + 1)}

    def say(name: str, now: float) -> list[str]:
        """Return the names of those who did not know this one."""
        return [
            other
            for other, company in companies.items()
            if other != name and company.on_heard(name, now)
        ]

    for second in range(60 + at):
        for other, company in companies.items():
            if company.must_speak(second):
                say(other, second)
    now = 60.0 + at
    newcomer = f"{name}.5"
    companies[newcomer] = Company(newcomer)
    assert companies[newcomer].must_speak(now)
    answers = [other for other in say(newcomer, now) if companies[other].must_speak(now)]
    assert 1 <= len(answers) <= ENOUGH


@examples(100)
@given(
    st.lists(st.floats(0, 30), min_size=2, max_size=30),
    st.lists(st.booleans(), max_size=8),
)
def test_each_learns_of_others_and_few_speak(begins: list[float], kept: list[bool]) -> None:
    """Look at each dispatcher every second, as dispatchers do. Some notices are lost."""
    names = [str(number) for number in range(len(begins))]
    companies = {name: Company(name) for name in names}
    begun = dict(zip(names, sorted(begins), strict=True))
    fates, notices, late = iter(kept), 0, 0
    for tenth in range(600):
        now = tenth / 10
        talking = [name for name in names if begun[name] <= now]
        waiting = [name for name in talking if (tenth - int(10 * begun[name])) % 10 == 0]
        while waiting:
            name = waiting.pop(0)
            if not companies[name].must_speak(now):
                continue
            notices += 1
            late += now > 50
            if not next(fates, True):
                continue
            for other, company in companies.items():
                # One that has just come to know of another answers at once.
                if other != name and company.on_heard(name, now) and other in talking:
                    waiting.append(other)
    assert not any(company.is_alone(60.0) for company in companies.values())
    # At the end, in ten seconds, no more than a few speak, however many there are.
    assert late <= (ENOUGH + 2) * (10 / SPEAK_SECONDS + 1)
