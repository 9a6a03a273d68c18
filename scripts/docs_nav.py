"""Add the decision records to the site's navigation, in order (a hook of MkDocs)."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def on_config(config: Any) -> None:
    """Append each record of ``docs/decisions`` to the last entry of the last section."""
    records = sorted(Path(config.docs_dir, "decisions").glob("[0-9]*.md"))
    (section,) = config.nav[-1].values()
    (entry,) = section[-1].values()
    entry += [f"decisions/{record.name}" for record in records]
