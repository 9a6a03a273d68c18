"""The dashboard's figures as plain tables, for browsers without scripts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jetmap.dispatch.roster import FunctionStatus
    from jetmap.wire.presence import Presence

MOST_ROWS = 200  # Rows of a table.
MAPS = ("Map", "Function", "State", "Done", "Failed", "Items a second", "Waits for")
HOSTS = ("Host", "Cores", "Ready", "Busy", "jetmap", "Python", "Fault")


def tables(
    snapshot: Mapping[str, Any] | None,
    agents: Sequence[Presence],
    functions: Sequence[FunctionStatus],
) -> str:
    """Make the tables. snapshot: the view of the pool; None: nobody has looked yet."""
    cores, busy = sum(p.cores for p in agents), sum(p.busy for p in agents)
    parts = [
        "<h1>Now</h1>",
        f"<p>{busy:,} of {_cores(cores)} busy, on {_agents(len(agents))}. "
        "Without scripts this page "
        'does not go on by itself: <a href="">load it again</a>.</p>',
    ]
    if snapshot is not None:
        rows = [_map(row) for row in snapshot["maps"].values()]
        parts.append(_table("Maps and jobs", MAPS, rows))
        causes = [
            (f["function"], f["kind"], f["type"], f["message"], f["count"])
            for f in snapshot["failures"].values()
        ]
        heads = ("Function", "Kind", "Type", "Message", "Count")
        parts.append(_table("Failures of the last hour", heads, causes))
    offered = [
        (s.info.name, s.info.doc.strip().partition("\n")[0], s.cores, "yes" if s.alive else "no")
        for s in functions
    ]
    parts.append(_table("Functions", ("Name", "What it does", "Cores", "Ready"), offered))
    hosts = [
        (p.host, p.cores, p.ready, p.busy, p.packages.get("jetmap", ""), p.python, p.failure or "")
        for p in agents
    ]
    parts.append(_table("Hosts", HOSTS, hosts))
    return "".join(parts)


def _map(row: Mapping[str, Any]) -> tuple[object, ...]:
    total = f"{row['total']:,}" if row["total"] is not None else "a stream"
    done = f"{row['done']:,} of {total}"
    values = (row["id"], row["function"], row["state"], done, row["failed"], row["rate"])
    return (*values, row["waits"] or "nothing")


def _cores(count: int) -> str:
    return "1 core" if count == 1 else f"{count:,} cores"


def _agents(count: int) -> str:
    return "1 agent" if count == 1 else f"{count:,} agents"


def _cell(value: object) -> str:
    """Return a cell; numbers are on the right, so that they can be compared."""
    if isinstance(value, int | float):
        return f'<td class="num">{value:,}</td>'
    return f"<td>{escape(str(value))}</td>"


def _table(title: str, heads: Iterable[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return f'<section class="panel"><h2>{title}</h2><p class="quiet">None.</p></section>'
    numeric = [isinstance(value, int | float) for value in rows[0]]
    head = "".join(
        f'<th class="num">{name}</th>' if is_number else f"<th>{name}</th>"
        for name, is_number in zip(heads, numeric, strict=True)
    )
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows[:MOST_ROWS])
    more = len(rows) - MOST_ROWS
    foot = f'<p class="more">{more} more.</p>' if more > 0 else ""
    return (
        f'<section class="panel flush"><header><h2>{title}</h2></header>'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{foot}</section>"
    )
