"""Each module has a unit test of its own; the list of those without one can only shrink."""

from __future__ import annotations

from scripts.untested_modules import LIST, untested


def test_new_modules_come_with_a_unit_test() -> None:
    listed = LIST.read_text(encoding="utf-8").split()
    new = sorted(set(untested()) - set(listed))
    assert not new, f"no tests/unit/<room>/test_<module>.py: {', '.join(new)}"


def test_the_list_names_only_modules_without_one() -> None:
    listed = LIST.read_text(encoding="utf-8").split()
    assert listed == sorted(listed)
    over = sorted(set(listed) - set(untested()))
    assert not over, f"run scripts/untested_modules.py --prune: {', '.join(over)}"
