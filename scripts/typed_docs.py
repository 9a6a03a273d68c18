"""Write the Python files of README.md and docs/ where type checkers find them.

    python scripts/typed_docs.py DIRECTORY

A snippet is the file that its first line names. Pages name their files alike (``tasks.py``), so
each file gets its page's name in front, and so do the imports of files of the same page.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SNIPPET = re.compile(r"^```python\n# (\w+)\.py\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def files_of(page: Path) -> dict[str, str]:
    """Return the files of a page, by their names with the page's in front."""
    found = SNIPPET.findall(page.read_text(encoding="utf-8"))
    prefix = page.stem.lower().replace("-", "_")
    names = "|".join({name for name, _ in found})
    local = re.compile(rf"^( *(?:from|import) )({names})\b", re.MULTILINE)
    renamed = rf"\1{prefix}_\2"
    return {f"{prefix}_{name}.py": local.sub(renamed, code) for name, code in found}


def main() -> None:
    """Write the files of every page."""
    directory = Path(sys.argv[1])
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for name, code in files_of(page).items():
            (directory / name).write_text(code, encoding="utf-8")


if __name__ == "__main__":
    main()
