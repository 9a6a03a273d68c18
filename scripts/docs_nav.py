"""Add the decision records to the site's navigation, in order (a hook of MkDocs)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SECTION = "Decisions"


def on_config(config: Any) -> None:
    """Append each record of ``docs/decisions`` to the section that is named for them."""
    records = sorted(Path(config.docs_dir, "decisions").glob("[0-9]*.md"))
    for entry in config.nav:
        if SECTION in entry:
            entry[SECTION] += [f"decisions/{record.name}" for record in records]
