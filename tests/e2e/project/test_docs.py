"""Check that the documentation names what exists, and that every page can be reached."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
SOURCE = re.compile(r"`((?:api|cluster)/[\w/]+\.py)`")
CODE = re.compile(r"`([^`\n]+)`")
NAME = re.compile(r"(?:[A-Z]\w*(?:\.\w+)?|[a-z_]+[a-z]_\w+)")
LINK = re.compile(r"\]\(([\w./-]+\.md)(?:#([\w-]+))?\)")


def names_in(path: Path) -> set[str]:
    """List the functions, classes, methods and constants that a module or package defines."""
    if path.is_dir():
        return set().union(*(names_in(module) for module in path.glob("*.py")))
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}.{inner.name}"
                for inner in node.body
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
            }
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def stops() -> list[tuple[str, str]]:
    """Give the path and the text of each stop of the tour."""
    text = (DOCS / "tour.md").read_text(encoding="utf-8").partition("## Can you find it?")[0]
    parts = re.split(r"^### \d+\. .+\n\n`(.+)`$", text, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def answers() -> list[tuple[list[str], list[str]]]:
    """Give the files and the names that answer each question of the tour."""
    text = (DOCS / "tour.md").read_text(encoding="utf-8").partition("## Can you find it?")[2]
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")][2:]
    return [(CODE.findall(files), CODE.findall(names)) for _, files, names in rows]


def test_the_tour_has_twelve_stops_and_ten_questions() -> None:
    assert (len(stops()), len(answers())) == (12, 10)


@pytest.mark.parametrize(("path", "text"), stops(), ids=[path for path, _ in stops()])
def test_each_stop_names_what_its_file_defines(path: str, text: str) -> None:
    code = [name.removesuffix("()") for name in CODE.findall(text)]
    names = [name for name in code if NAME.fullmatch(name)]
    assert names, f"the stop {path} names nothing to look for"
    assert set(names) <= names_in(ROOT / path)
    for other in code:
        if other.endswith(".py"):
            places = (ROOT / path).parent, (ROOT / path).parent.parent
            assert any((place / other).exists() for place in places), other


@pytest.mark.parametrize(("files", "names"), answers())
def test_each_answer_names_what_its_files_define(files: list[str], names: list[str]) -> None:
    defined = set().union(*(names_in(ROOT / file) for file in files))
    assert names and set(names) <= defined


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")) + sorted(DOCS.glob("*.md")))
def test_each_source_file_that_a_page_names_exists(page: Path) -> None:
    for path in SOURCE.findall(page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), f"{page.name} names {path}"


def test_the_rooms_of_the_architecture_page_are_those_that_exist() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    section = text.partition("## The rooms\n")[2].partition("\n## ")[0]
    told = set(re.findall(r"^\| `(\w+)/`", section, re.MULTILINE))
    rooms = {path.parent.name for path in ROOT.glob("cluster/jetmap/*/*.py")} | {"jetmap_api"}
    empty = {name for name in rooms if not any(_sources(name))}
    assert told == rooms - empty


def _sources(room: str) -> list[Path]:
    found = [*ROOT.glob(f"cluster/jetmap/{room}/*.py"), *ROOT.glob(f"api/{room}/*.py")]
    return [path for path in found if path.stat().st_size]


def test_each_page_is_in_the_navigation_and_linked_from_the_first() -> None:
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    pages = {page.name for page in DOCS.glob("*.md")}
    assert set(re.findall(r"[\w-]+\.md", repr(navigation))) == pages
    first = (DOCS / "index.md").read_text(encoding="utf-8")
    assert {target for target, _ in LINK.findall(first)} == pages - {"index.md"}


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")) + sorted(ROOT.glob("*.md")))
def test_links_to_headings_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        linked = page.parent / target
        assert linked.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in _anchors(linked), f"{page.name} links to {target}#{anchor}"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h.lower()).strip().replace(" ", "-") for h in headings}
