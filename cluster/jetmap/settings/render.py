"""Write ``config/jetmap.toml`` and the README's table of limits from the declared settings.

Run ``python -m jetmap.settings.render`` in the project's directory (``make settings``).
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from .load import FIELDS, SECTIONS, Field

CONFIG = Path("config/jetmap.toml")
README = Path("README.md")
WIDTH = 100

HEAD = """\
# Every setting of jetmap with its default. Generated: `make settings` writes this file.
#
# Read from $JETMAP_CONFIG, else ./jetmap.toml, else ./config/jetmap.toml. An option of the
# command line beats the variable JETMAP_<NAME>, which beats this file, which beats the
# default. (Options that name no variable belong to one call: --kwargs, --timeout, --json.)
# "" means 'not set'. Durations are seconds. Sizes are bytes, or strings such as
# "64KiB", "1.5GiB". Relative paths start at the working directory. A list is a comma-separated
# string in a variable. Keep secrets in files that only their user may read, or in
# variables; never on a command line.
"""
BEGIN = "<!-- limits, by `make settings` -->\n"
END = "<!-- end of limits -->\n"
UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


def config() -> str:
    """Return the text of ``config/jetmap.toml``."""
    parts = [HEAD]
    for section, declared in SECTIONS.items():
        parts.append(f"\n# --- {declared.title} ".ljust(89, "-") + "\n\n")
        for name, field in FIELDS.items():
            if field.section != section:
                continue
            comment = textwrap.wrap(field.setting.comment, WIDTH - 2)
            parts += [f"# {line}\n" for line in comment]
            parts.append(f"{name} = {_toml(field)}\n")
    return "".join(parts)


def limits() -> str:
    """Return the README's table of limits."""
    rows = ["| setting | default | what it limits: what happens beyond |", "| --- | --- | --- |"]
    for name, field in FIELDS.items():
        if field.setting.limit:
            rows.append(f"| `{name}` | {_shown(field)} | {field.setting.limit} |")
    return "\n".join(rows) + "\n"


def readme(text: str) -> str:
    """Return the README with today's table of limits."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"README.md lacks the lines {BEGIN.strip()} and {END.strip()}")
    return f"{before}{begin}\n{limits()}\n{end}{after}"


def size_text(nbytes: int, space: str = "") -> str:
    """Return a size in the largest unit that divides it; in bytes if none does."""
    for unit, factor in UNITS:
        if nbytes % factor == 0:
            return f"{nbytes // factor}{space}{unit}"
    return f"{nbytes:,}"


def _toml(field: Field) -> str:
    default: Any = field.default
    if default is None:
        return '""'
    if field.is_size and not size_text(default)[-1].isdigit():
        return f'"{size_text(default)}"'
    if isinstance(default, bool | str | list):
        return json.dumps(default)
    return f"{default:_}" if default >= 10_000 else str(default)


def _shown(field: Field) -> str:
    default: Any = field.default
    setting = field.setting
    if default is None:
        return setting.shown
    if field.is_size:
        return size_text(default, " ") + setting.unit
    if isinstance(default, float):
        return f"{default:,g} s"
    return f"{default:,}{setting.unit}"


def main() -> None:
    """Write both files."""
    CONFIG.write_text(config(), encoding="utf-8")
    README.write_text(readme(README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
