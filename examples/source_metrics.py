"""Parse and measure every ``.py`` file of a Python installation, on every core.

    python examples/source_metrics.py                 the standard library, with its tests
    python examples/source_metrics.py src/ tests/     these directories
    python examples/source_metrics.py --serial        the same on one core, to compare

A file that does not parse (Python's own tests have some) fails alone; the others go on.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from jetmap import Cluster, task

BRANCHES = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.IfExp,
    ast.ExceptHandler,
    ast.comprehension,
    ast.match_case,
    ast.Assert,
)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class Metrics:
    """Figures of one source file. complexity: branches + 1 of its most branching function."""

    lines: int
    functions: int
    classes: int
    documented: int
    complexity: int
    most_complex: str
    depth: int


@task
def measure(path: str) -> Metrics:
    """Measure one Python source file."""
    source = Path(path).read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's invalid escapes
        tree = ast.parse(source, path)
    metrics = Metrics(source.count(b"\n"), 0, 0, 0, 0, "", depth(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            metrics.classes += 1
        elif isinstance(node, FUNCTIONS):
            metrics.functions += 1
            metrics.documented += ast.get_docstring(node, clean=False) is not None
            branches = complexity(node)
            if branches > metrics.complexity:
                metrics.complexity, metrics.most_complex = branches, node.name
    return metrics


def complexity(function: ast.AST) -> int:
    """Compute McCabe's number of a function: its decisions plus one."""
    decisions = 1
    for node in ast.walk(function):
        if isinstance(node, BRANCHES):
            decisions += 1
        elif isinstance(node, ast.BoolOp):
            decisions += len(node.values) - 1
    return decisions


def depth(tree: ast.AST) -> int:
    """Compute the depth of the file's syntax tree."""
    deepest, level = 0, [tree]
    while level:
        deepest += 1
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return deepest


def source_files(directories: Sequence[str] = ()) -> Iterator[str]:
    """List every ``.py`` file under the directories, or those that came with this Python."""
    if directories:
        found = {path for directory in directories for path in Path(directory).rglob("*.py")}
    else:
        library = Path(sysconfig.get_path("stdlib"))
        found = {path for path in library.rglob("*.py") if "site-packages" not in path.parts}
    return (str(path) for path in sorted(found) if path.is_file())


def report(files: Sequence[str], measured: dict[str, Metrics], errors: dict[str, str]) -> None:
    total = sum(metrics.lines for metrics in measured.values())
    functions = sum(metrics.functions for metrics in measured.values())
    documented = sum(metrics.documented for metrics in measured.values())
    print(f"{len(files):,} files, {total:,} lines, {functions:,} functions", end="")
    print(f", {documented / functions:.0%} of them documented" if functions else "")
    print("\nmost branching functions:")
    branching = sorted(measured.items(), key=lambda pair: -pair[1].complexity)
    for path, metrics in branching[:8]:
        print(f"  {metrics.complexity:5}  {metrics.most_complex}  {path}")
    if errors:
        print(f"\n{len(errors)} files could not be measured:")
        for path, message in list(errors.items())[:5]:
            print(f"  {path}: {message}")


async def main(directories: Sequence[str], *, serial: bool) -> None:
    files = list(source_files(directories))
    measured: dict[str, Metrics] = {}
    errors: dict[str, str] = {}
    began = perf_counter()
    if serial:
        for path in files:
            try:
                measured[path] = measure(path)
            except (SyntaxError, ValueError, RecursionError) as exc:
                errors[path] = f"{type(exc).__name__}: {exc}"
    else:
        async with Cluster() as cluster, cluster.stream(measure, files) as outcomes:
            async for outcome in outcomes:
                if outcome.error is None:
                    measured[outcome.item] = outcome.value
                else:
                    errors[outcome.item] = f"{outcome.error.type}: {outcome.error.message}"
    took = perf_counter() - began
    report(files, measured, errors)
    print(f"\n{took:.2f} s, {len(files) / took:,.0f} files a second")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directories", nargs="*", help="where to look; else this installation")
    parser.add_argument("--serial", action="store_true", help="on one core, without jetmap")
    chosen = parser.parse_args()
    asyncio.run(main(chosen.directories, serial=chosen.serial))
