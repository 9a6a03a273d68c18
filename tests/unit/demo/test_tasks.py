"""The functions of the demo."""

from __future__ import annotations

from pathlib import Path

import pytest

from jetmap.demo.tasks import Metrics, measure, next_prime


def test_a_file_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        "class C:\n    def f(self, x):\n        if x and x > 1:\n            return 1\n"
        "def g():\n    pass\n"
    )
    assert measure(str(file)) == Metrics(lines=6, functions=2, classes=1, complexity=3, name="f")


def test_a_file_that_does_not_parse(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("def f(\n")
    with pytest.raises(SyntaxError):
        measure(str(file))


@pytest.mark.parametrize(("n", "prime"), [(0, 2), (3, 3), (4, 5), (24, 29), (25, 29), (90, 97)])
def test_the_next_prime(n: int, prime: int) -> None:
    assert next_prime(n) == prime
