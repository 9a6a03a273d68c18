"""The functions of ``jetmap demo``."""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass
from pathlib import Path

from jetmap import task

BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.IfExp, ast.ExceptHandler)
MORE_BRANCHES = (ast.comprehension, ast.match_case, ast.Assert)


@dataclass
class Metrics:
    """Measures of a source file, and the complexity of ``name``, its most branching function."""

    lines: int
    functions: int
    classes: int
    complexity: int
    name: str


@task
def measure(path: str) -> Metrics:
    """Parse a Python source file and measure it."""
    source = Path(path).read_bytes()
    with warnings.catch_warnings():
        # Files of other packages may have invalid escapes.
        warnings.simplefilter("ignore")
        tree = ast.parse(source, path)
    found = Metrics(source.count(b"\n"), 0, 0, 0, "")
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            found.classes += 1
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.functions += 1
            complexity = 1 + sum(map(_decisions, ast.walk(node)))
            if complexity > found.complexity:
                found.complexity, found.name = complexity, node.name
    return found


def _decisions(node: ast.AST) -> int:
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    return isinstance(node, BRANCHES + MORE_BRANCHES)


@task
def next_prime(n: int) -> int:
    """Find the smallest prime number that is at least ``n``, by trial division."""
    while not _is_prime(n):
        n += 1
    return n


def _is_prime(n: int) -> bool:
    if n < 4:
        return n > 1
    if n % 2 == 0 or n % 3 == 0:
        return False
    divisor = 5
    while divisor * divisor <= n:
        if n % divisor == 0 or n % (divisor + 2) == 0:
            return False
        divisor += 6
    return True
