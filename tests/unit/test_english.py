"""The prose follows the rules in CONTRIBUTING.md."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import english


@pytest.mark.slow
def test_the_prose_follows_the_rules() -> None:
    breaches = [
        f"{path.relative_to(english.ROOT)}:{line}: {what}"
        for path in english.everything()
        for line, what in english.check(path)
    ]
    assert not breaches, "\n".join(breaches)


@pytest.mark.parametrize(
    ("source", "breach"),
    [
        ('"""What a caller sees."""', "begins with 'What'"),
        ('"""How it works."""', "begins with 'How'"),
        ('def f():\n    """Of the chunk."""', "begins with 'Of'"),
        ('def f():\n    """Returns it."""', "not in the imperative"),
        ('def f() -> bool:\n    """Whether it is so."""', "begins with 'Whether'"),
        ('"""The agent is told."""', "'is told'"),
        ("x = 1  # This is no number.", "'is no n'"),
        ("LIMIT = 1  # Of a chunk.", "does not begin with what it measures"),
    ],
)
def test_breaches_are_found(source: str, breach: str, tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(source)
    assert any(breach in what for _, what in english.check(file))


@pytest.mark.parametrize(
    "source",
    [
        '"""The caller\'s view of a map."""',
        'def f():\n    """Return what the caller sees."""',
        'def f() -> bool:\n    """Return whether it is so."""',
        'def f():\n    """Wait while there are no workers."""',
        "x = 1  # It is no longer used.",
        "LIMIT = 1  # Chunks that an agent holds.",
    ],
)
def test_plain_english_passes(source: str, tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(source)
    assert list(english.check(file)) == []


def test_code_in_pages_is_not_prose(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Text\n\n```python\nx = 1  # is told\n```\n\n`is told`\n\nThe agent is told.\n")
    assert [line for line, _ in english.check(page)] == [9]
