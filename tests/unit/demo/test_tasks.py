"""The functions of the demo."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest


def test_a_file_is_measured(tasks: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        "class C:\n    def f(self, x):\n        if x and x > 1:\n            return 1\n"
        "def g():\n    pass\n"
    )
    expected = tasks.Metrics(lines=6, functions=2, classes=1, complexity=3, name="f")
    assert tasks.measure(str(file)) == expected


def test_a_file_that_does_not_parse(tasks: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("def f(\n")
    with pytest.raises(SyntaxError):
        tasks.measure(str(file))


@pytest.mark.parametrize(("n", "prime"), [(0, 2), (3, 3), (4, 5), (24, 29), (25, 29), (90, 97)])
def test_the_next_prime(tasks: ModuleType, n: int, prime: int) -> None:
    assert tasks.next_prime(n) == prime
