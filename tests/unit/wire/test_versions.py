"""Versions decide whose pickles a process reads; no offer of another Python is chosen."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from announcements import presence
from jetmap import NotImportable
from jetmap.agent import offer as agent_offer
from jetmap.cli.status import show, summary
from jetmap.dispatch.agent_tracker import AgentTracker
from jetmap.dispatch.roster import Roster
from jetmap.functions.locating import resolve
from jetmap.settings import Settings
from jetmap.wire import versions
from jetmap.wire.messages import FunctionRef
from jetmap.wire.presence import Presence

OURS = {"python": versions.python_version(), "packages": versions.package_versions()}
OLD: dict[str, Any] = {"python": "3.9.1", "packages": {"cloudpickle": "3.1.3"}}


def there(agent: str, rank: int, trusts: bool = True, **changes: Any) -> Presence:
    return presence(agent, offer=f"o{rank}", rank=rank, trusts=trusts, functions=[], **changes)


def roster_of(*agents: Presence) -> Roster:
    roster = Roster()
    for each in agents:
        roster.on_presence(each, 0.0)
    return roster


def ref_of(pickles: str | None = None) -> FunctionRef:
    return FunctionRef(
        "__main__", "f", value=b"", pickles=versions.pickles() if pickles is None else pickles
    )


def tracking(roster: Roster, sealer: Any = None) -> AgentTracker:
    async def announced(presence: Presence) -> None: ...

    nobody: Any = None
    made = AgentTracker(nobody, "p", announced, sealer=sealer)
    roster.sealer = sealer
    made.roster = roster
    return made


def test_what_must_be_the_same() -> None:
    of = versions.pickles_of
    new = {"cloudpickle": "3.1.3", "numpy": "2"}
    assert of("3.11.7", new) == of("3.11.1", {"cloudpickle": "3.1.0"})
    others = [of("3.12.7", new), of("PyPy 3.11.7", new), of("", new), of("3.11.7", {})]
    others.append(of("3.11.7", {"cloudpickle": "2.2.1"}))
    assert of("3.11.7", new) not in others


@pytest.mark.parametrize("changes", [OLD, {}, OURS | {"packages": {}}])
def test_an_offer_of_another_python_is_not_chosen(changes: dict[str, Any]) -> None:
    found = tracking(roster_of(there("a", 1, **OURS), there("b", 2, **changes)))
    assert found.roster.offer("f", ref_of()) == "o1"
    assert found.roster.offer("f", ref_of("")) == "o2"  # It only names the function.
    assert tracking(roster_of(there("b", 2, **changes))).roster.offer("f", ref_of()) is None
    assert found.roster.offer("f", None) is None


def test_the_error_says_what_differs_and_where() -> None:
    misfits = roster_of(there("a", 1, **OLD), there("b", 2), there("c", 3, trusts=False, **OURS))
    error = tracking(misfits).misfit(ref_of())
    assert isinstance(error, NotImportable)
    ours = versions.versions_text(versions.python_version(), versions.package_versions())
    assert str(error) == (
        "f of __main__ travels as a pickle, which only the same versions of Python and cloudpickle "
        f"can read: this process has {ours}, but host-a has Python 3.9.1 with cloudpickle 3.1.3; "
        "host-b has an older jetmap, which does not announce its Python. Use the same versions on "
        "both sides, or move the function to a module that the workers import "
        "(jetmap worker TASKS)"
    )
    assert tracking(misfits).misfit(ref_of("")) is None
    assert tracking(misfits).misfit(None) is None
    assert tracking(roster_of()).misfit(ref_of()) is None


def test_the_up_of_another_python_beside_us() -> None:
    class Sealer:
        offer = "u1"

    def beside(**changes: Any) -> AgentTracker:
        return tracking(roster_of(there("a", 1, trusts=False, local="u1", **changes)), Sealer())

    assert beside(**OURS).roster.offer("f", ref_of()) == "u1"
    assert beside(**OLD).roster.offer("f", ref_of()) is None
    assert beside(**OLD).roster.offer("f", ref_of("")) == "u1"
    assert "host-a has Python 3.9.1" in str(beside(**OLD).misfit(ref_of()))


def test_an_embedded_cluster_is_our_own_python() -> None:
    embedded = there("a", 1, trusts=False, embedded=True)
    assert tracking(roster_of(embedded)).roster.offer("f", ref_of()) == "o1"


def test_a_worker_reads_no_pickle_of_another_python() -> None:
    """Whatever way it came: unpickling it would be the crash."""
    evil = b"cos\nabort\n(tR."
    for _ in range(2):
        with pytest.raises(NotImportable, match=r"f was pickled by Python 3\.9.* this worker has"):
            resolve(FunctionRef("__main__", "f", value=evil, pickles="Python 3.9, cloudpickle 3.1"))


def test_offers_of_different_pythons_have_different_names(monkeypatch: pytest.MonkeyPatch) -> None:
    from jetmap.agent.options import AgentOptions, worker_setup
    from jetmap.wire.presence import FunctionInfo
    from jetmap.wire.worker_start import Ready

    nothing: Any = None

    def name(trust: bool) -> str:
        made = agent_offer.Offer(
            nothing,
            AgentOptions(Settings(pool="p"), worker_setup(Settings(), trust=trust), (), "/"),
        )
        made.update(Ready([FunctionInfo("f")], "s", []))
        return made.name

    ours = name(True), name(False)
    monkeypatch.setattr(agent_offer, "pickles", lambda: "Python 3.9, cloudpickle 3.1")
    assert name(True) != ours[0] and name(False) == ours[1]


def shown(*agents: Presence) -> tuple[dict[str, Any], str]:
    found = summary("p", list(agents))
    output = io.StringIO()
    show(found, Console(file=output, width=300))
    return found, output.getvalue()


def test_status_shows_versions_and_warns_of_differences() -> None:
    a, b, c = there("a", 1, **OURS), there("b", 2, **OLD), there("c", 3)
    found, text = shown(a, b, c)
    assert [host["python"] for host in found["hosts"]] == [OURS["python"], "3.9.1", ""]
    assert found["hosts"][0]["packages"]["msgspec"]
    ours = OURS["python"]
    assert found["version_differences"][0] == f"Python: {ours} on host-a; 3.9.1 on host-b"
    assert any(line.startswith("numpy: ") for line in found["version_differences"])
    assert "warning: hosts have different versions" in text and "3.9.1 on host-b" in text
    found, text = shown(a, a, c)
    assert found["version_differences"] == [] and "warning" not in text
