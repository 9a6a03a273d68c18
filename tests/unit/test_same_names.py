"""A name means one thing in the whole tree, unless a module's name stands before it."""

from __future__ import annotations

import ast

import pytest
from scripts.same_names import SAME, ambiguous, modules


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return modules()


def test_names_mean_one_thing(trees: dict[str, ast.Module]) -> None:
    found = ambiguous(trees)
    assert not found, f"rename all but one of each: {found}"


def test_the_names_that_are_the_same_thing_exist_twice(trees: dict[str, ast.Module]) -> None:
    classes = [
        node.name for tree in trees.values() for node in tree.body if isinstance(node, ast.ClassDef)
    ]
    assert {name for name in SAME if classes.count(name) < 2} == set()


def test_functions_count_when_they_are_imported_bare() -> None:
    trees = {
        "a.one": "def split(): ...\ndef only(): ...\nclass Run: ...\nPart = int | str\nLIMIT = 1",
        "a.two": "def split(): ...\nRun = dict[str, int]\nLIMIT = 2",
        "a.importer": "from .one import split, only",
        "b": "from a import two\ntwo.split()\nclass Part: ...",
    }
    parsed = {name: ast.parse(text) for name, text in trees.items()}
    assert ambiguous(parsed) == {"Part": ["a.one", "b"], "Run": ["a.one", "a.two"]}
    parsed["c"] = ast.parse("from a.two import split")
    assert ambiguous(parsed)["split"] == ["a.one", "a.two"]
