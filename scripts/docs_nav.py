"""List the decision records on their overview page (a hook of MkDocs)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

MARK = "<!-- records -->"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Replace the mark on ``decisions.md`` by links to all records, in order."""
    if page.file.src_uri != "decisions.md":
        return markdown
    records = sorted(Path(config.docs_dir, "decisions").glob("[0-9]*.md"))
    return markdown.replace(MARK, "\n".join(map(_entry, records)))


def _entry(record: Path) -> str:
    title, *rest = record.read_text(encoding="utf-8").splitlines()
    number, _, name = title.removeprefix("# ").partition(": ")
    status = next((line for line in rest if line.startswith("Date:")), "").partition("Status: ")[2]
    status = status.replace("](", "](decisions/")
    note = "" if status in ("accepted", "") else f" ({status})"
    return f"- [{number}](decisions/{record.name}): {name}{note}"
