"""The files that are generated from the declared settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from jetmap.settings import FIELDS, render

ROOT = Path(__file__).resolve().parents[3]


def test_the_file_and_the_readme_are_those_that_would_be_generated() -> None:
    """Run `make settings` after changing a setting."""
    assert (ROOT / render.CONFIG).read_text(encoding="utf-8") == render.config()
    readme = (ROOT / render.README).read_text(encoding="utf-8")
    assert readme == render.readme(readme)


def test_both_files_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "README.md").write_text(f"before\n{render.BEGIN}old\n{render.END}after\n")
    render.main()
    assert (tmp_path / render.CONFIG).read_text(encoding="utf-8") == render.config()
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert readme == f"before\n{render.BEGIN}\n{render.limits()}\n{render.END}after\n"


@pytest.mark.parametrize("lacking", [render.BEGIN, render.END])
def test_a_readme_without_a_place_for_the_table(lacking: str) -> None:
    text = f"{render.BEGIN}{render.END}".replace(lacking, "")
    with pytest.raises(ValueError, match="lacks the lines"):
        render.readme(text)


def test_every_setting_is_in_the_file_and_every_limit_in_the_table() -> None:
    lines = render.config().splitlines()
    assert [line.split(" = ")[0] for line in lines if line and line[0] != "#"] == list(FIELDS)
    assert max(map(len, lines)) <= render.WIDTH
    limits = [name for name, field in FIELDS.items() if field.setting.limit]
    assert [row.split("`")[1] for row in render.limits().splitlines()[2:]] == limits


@pytest.mark.parametrize(
    ("nbytes", "shown"),
    [(1 << 30, "1GiB"), (3 << 20, "3MiB"), (1 << 10, "1KiB"), (1_025, "1,025"), (1, "1")],
)
def test_a_size_has_the_largest_unit_that_divides_it(nbytes: int, shown: str) -> None:
    assert render.size_text(nbytes) == shown
    assert render.size_text(1 << 30, " ") == "1 GiB"
