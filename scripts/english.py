"""Check the prose of this repository: the part of the rules in CONTRIBUTING.md that a program can.

Print each breach, and exit with 1 if there is one::

    python scripts/english.py [PATH...]

It reads the docstrings and comments of Python files, and Markdown pages without their code. A
docstring begins with an imperative verb or with the noun that the thing is.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PLACES = ("cluster", "api", "tests", "bench", "scripts", "examples", "docs", "changes", "chaos")
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")

# Words that do not begin a docstring: its subject must be named.
OPENINGS = re.compile(
    r"(what|who|whom|whose|whether|of|that|which|how|when|where|as|also|so|until|with|for|in|at|by|from)\b",
    re.IGNORECASE,
)
# Verbs in the third person: docstrings use the imperative.
THIRD_PERSON = re.compile(
    r"(adds|answers|asks|begins|builds|calls|checks|closes|collects|counts|creates|cuts|decides|"
    r"decodes|does|drops|encodes|ends|finds|fails|gets|gives|goes|hears|holds|is|keeps|kills|lets|"
    r"lists|looks|makes|marks|notes|opens|passes|polls|prints|publishes|puts|raises|reads|"
    r"registers|removes|renews|returns|runs|says|sends|serves|sets|shows|sorts|splits|starts|"
    r"stops|stores|takes|tells|tries|turns|waits|watches|writes|yields)\b",
    re.IGNORECASE,
)
BANNED = re.compile(
    r"\b(?:is|are|was|were|be) told\b|\bheard of\b|\b(?:is|are) ones? that\b|\bso many\b|"
    r"(?<!there )\b(?:is|are) no(?! longer\b| more\b|,)\s+[a-z]|\bof which\b|\bof whom\b",
    re.IGNORECASE,
)


# A constant's comment begins with what it measures: "# Seconds between …", never "# Of a chunk.".
CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]* *(:[^=]*)?=[^=]")


def check(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of every breach in a file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        yield from _check_page(text)
    else:
        yield from _check_docstrings(ast.parse(text))
        yield from _check_comments(text)


def files(paths: list[Path]) -> list[Path]:
    """List the files to check in these files and folders."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += [f for suffix in ("*.py", "*.md") for f in path.rglob(suffix)]
        elif path.exists():
            found.append(path)
    return sorted(found)


def everything() -> list[Path]:
    """List all files that the rules hold for."""
    return files([ROOT / each for each in (*PLACES, *PAGES)])


def _check_page(text: str) -> Iterator[tuple[int, str]]:
    prose = re.sub(r"```.*?```|`[^`\n]*`", lambda m: re.sub(r"[^\n]", "·", m[0]), text, flags=re.S)
    yield from _banned(prose, 1)


def _check_docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        doc = ast.get_docstring(node, clean=False)
        if doc is None:
            continue
        line = node.body[0].lineno
        first = doc.strip()
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if OPENINGS.match(first):
            yield line, f"begins with {first.split()[0]!r}: {first[:60]}"
        elif is_function and THIRD_PERSON.match(first):
            yield line, f"not in the imperative: {first[:60]}"
        yield from _banned(re.sub(r"``[^`]*``|`[^`]*`", "·", doc), line)


def _check_comments(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield from _banned(token.string, token.start[0])
            first = token.string.lstrip("#:! ")
            if CONSTANT.match(token.line) and OPENINGS.match(first):
                yield token.start[0], f"does not begin with what it measures: {first[:60]}"


def _banned(text: str, line: int) -> Iterator[tuple[int, str]]:
    for match in BANNED.finditer(text):
        yield line + text.count("\n", 0, match.start()), f"{' '.join(match[0].split())!r}"


def main(arguments: list[str]) -> int:
    """Print the breaches in the files named, or in all."""
    paths = files([Path(each) for each in arguments]) if arguments else everything()
    count = 0
    for path in paths:
        for line, what in check(path):
            print(f"{path}:{line}: {what}")
            count += 1
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
