"""List the names that mean different things in two modules.

A reader who meets ``Step`` must know without looking which one it is::

    python scripts/same_names.py

Counted are classes and types of one name that two modules define, and functions of one name that
are imported by their bare name from two modules. A function that is always called by its module's
name, as in ``runs.split`` and ``arrays.split``, is clear where it is read. ``SAME`` has the names
that mean one thing wherever they are.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (ROOT / "cluster", ROOT / "api")

# Names that two modules define for one thing. The gateway's models are the JSON forms of things
# that the library has under the same names.
SAME = frozenset({"Agent", "Function", "ItemError", "Job", "Problem", "Scale"})


def modules() -> dict[str, ast.Module]:
    """Parse all modules but the generated ones, by their dotted names."""
    return {
        _dotted(file.relative_to(package)): ast.parse(file.read_text(encoding="utf-8"))
        for package in PACKAGES
        for file in sorted(package.rglob("*.py"))
        if "_sync" not in file.parts
    }


def ambiguous(trees: dict[str, ast.Module]) -> dict[str, list[str]]:
    """Return the modules that define each name with more than one meaning."""
    defined: defaultdict[str, set[str]] = defaultdict(set)
    for module, tree in trees.items():
        for name in _types(tree):
            defined[name].add(module)
    functions = {module: _functions(tree) for module, tree in trees.items()}
    for importer, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                source = _source(importer, node, trees)
                for alias in node.names:
                    if alias.asname is None and alias.name in functions.get(source, ()):
                        defined[alias.name].add(source)
    return {
        name: sorted(found)
        for name, found in sorted(defined.items())
        if len(found) > 1 and name not in SAME
    }


def _types(tree: ast.Module) -> set[str]:
    """Return the classes of a module and its aliases of types."""
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    aliases = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript | ast.BinOp)
        for target in node.targets
        if isinstance(target, ast.Name) and _is_camel(target.id)
    }
    return classes | aliases


def _functions(tree: ast.Module) -> set[str]:
    return {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def _is_camel(name: str) -> bool:
    bare = name.lstrip("_")
    return len(bare) > 1 and bare[0].isupper() and not bare.isupper()


def _dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _source(importer: str, node: ast.ImportFrom, trees: dict[str, ast.Module]) -> str:
    """Return the module that an import names."""
    if not node.level:
        return node.module or ""
    is_package = any(name.startswith(f"{importer}.") for name in trees)
    parts = importer.split(".")
    above = parts[: len(parts) - node.level + is_package]
    return ".".join([*above, node.module] if node.module else above)


def main() -> None:
    found = ambiguous(modules())
    for name, where in found.items():
        print(f"{name}: {', '.join(where)}")
    print(f"{len(found)} names mean different things")


if __name__ == "__main__":
    main()
