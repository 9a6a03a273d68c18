"""List the modules without a unit test of their own.

``cluster/jetmap/<room>/<module>.py`` is tested by ``tests/unit/<room>/test_<module>.py``, and
``api/jetmap_api/<module>.py`` by ``tests/unit/api/test_<module>.py``::

    python scripts/untested_modules.py [--prune] [ROOM...]

Modules that only declare (constants, records, errors, protocols) need none, and neither do entry
points, which ``tests/e2e`` runs as processes. ``tests/unit/untested_modules.txt`` lists those that
still lack one.
"""

from __future__ import annotations

import argparse
import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "tests" / "unit" / "untested_modules.txt"
PACKAGES = {ROOT / "cluster" / "jetmap": "", ROOT / "api" / "jetmap_api": "api"}

# Programs and the commands that only start them: real processes test these.
ENTRY_POINTS = frozenset(
    {
        "cluster/jetmap/cli/__main__.py",
    }
)


def test_of(module: Path) -> Path:
    """Return the unit test that mirrors this module."""
    package = next(package for package in PACKAGES if package in module.parents)
    room = module.relative_to(package).parent
    unit = ROOT / "tests" / "unit" / PACKAGES[package] / room
    name = module.parent.name if module.name == "__init__.py" else module.stem
    return unit / f"test_{name}.py"


def needs_test(module: Path) -> bool:
    """Return whether this module defines behaviour and is not an entry point."""
    return str(module.relative_to(ROOT)) not in ENTRY_POINTS and defines_behaviour(module)


def defines_behaviour(module: Path) -> bool:
    """Return whether this module does more than declare, and is not generated."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    return "_sync" not in module.parts and any(_acts(node) for node in tree.body)


def _acts(node: ast.stmt) -> bool:
    """Return whether this is a function with a body, or a class with such a method."""
    if isinstance(node, ast.ClassDef):
        is_protocol = any(
            isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases
        )
        return not is_protocol and any(_acts(inner) for inner in node.body)
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    return any(not isinstance(statement, ast.Expr) for statement in node.body)


@cache
def untested() -> list[str]:
    """List the paths of all modules that need a unit test and have none."""
    modules = [module for package in PACKAGES for module in sorted(package.rglob("*.py"))]
    return [
        str(module.relative_to(ROOT))
        for module in modules
        if needs_test(module) and not test_of(module).is_file()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("room", nargs="*", help="only these rooms, as in dispatch or api")
    parser.add_argument("--prune", action="store_true", help="drop from the list what has a test")
    arguments = parser.parse_args()
    if arguments.prune:
        listed = set(LIST.read_text(encoding="utf-8").split()) & set(untested())
        LIST.write_text("".join(f"{path}\n" for path in sorted(listed)), encoding="utf-8")
    rooms = set(arguments.room)
    found = [path for path in untested() if not rooms or rooms & set(Path(path).parts)]
    print(*found, sep="\n")
    print(f"{len(found)} modules without a unit test")


if __name__ == "__main__":
    main()
