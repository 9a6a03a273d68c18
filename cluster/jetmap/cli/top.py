"""``jetmap top``: the dashboard's views Now and Maps in a terminal, live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from jetmap.logs import harmless
from jetmap.settings import Settings

from .clusters import attached
from .map_options import LabelOptions, labels_of, shown_cores, shown_labels
from .options import BROKER, takes
from .signals import run_cancellable
from .streams import as_cell

if TYPE_CHECKING:
    from rich.console import RenderableType

    from jetmap.client.cluster import Cluster

RowFilter = Callable[[Mapping[str, Any]], bool]

STEP_SECONDS = 1.0  # Seconds between two frames.
MOST_HOSTS = 12  # Hosts whose cores are drawn one by one; on a low terminal, fewer.
NO_WORKERS = "no workers: start `jetmap worker TASKS` with the same --nats and --pool"

# Colours of the first functions, in the order of their slots; the others are grey.
COLOURS = (
    "cyan", "yellow", "green", "magenta", "bright_blue", "bright_cyan", "bright_magenta",
    "bright_yellow",
)  # fmt: skip
GAP = "  "  # Between the figures of a line.
BAR = 10  # Characters of a map's progress.
WIDE, MEDIUM = 146, 100  # Columns of terminals that have room for all figures, and for most.
CUT = ("function", "waits for", "labels")  # Columns that may be cut.
FIRST_SLOT = 0x100
STATE_STYLES = {"paused": "yellow", "waiting": "yellow"}
MARKS = {
    ".": ("·", "dim"),
    "~": ("~", "bright_blue"),
    "-": ("↓", "bright_blue"),
    "!": ("x", "bold red"),
    "?": ("?", "red"),
}


@takes(*BROKER)
def top(
    settings: Settings,
    function: Annotated[
        str | None,
        typer.Option("--function", metavar="NAME", help="Show maps of this function only."),
    ] = None,
    label: LabelOptions = None,
) -> None:
    """Show the cores, maps and failures of a pool, live, until Ctrl-C.

    Without --nats the command asks the `jetmap up` of this directory. If the output is not a
    terminal, it prints them once.

    Examples: jetmap top --nats nats://broker:4222 · jetmap top --label customer=7
    """
    labels = labels_of(label)

    def is_wanted(row: Mapping[str, Any]) -> bool:
        return labels.items() <= row["labels"].items() and function in (None, row["function"])

    try:
        run_cancellable(_show(attached(settings), Console(soft_wrap=False), is_wanted))
    except KeyboardInterrupt:
        pass  # The usual end.


async def _show(cluster: Cluster, console: Console, is_wanted: RowFilter) -> None:
    async with cluster:
        view = await cluster.watch.view()
        if not console.is_terminal:
            console.print(screen(view.snapshot(), console.width, 10_000, is_wanted))
            return
        from rich.live import Live

        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                view = await cluster.watch.view()
                frame = screen(view.snapshot(), console.width, console.height, is_wanted)
                live.update(frame, refresh=True)
                await asyncio.sleep(STEP_SECONDS)


def screen(
    document: Mapping[str, Any], width: int, height: int, is_wanted: RowFilter = lambda row: True
) -> RenderableType:
    """Make one frame of at most ``height`` lines.

    Args:
        is_wanted: Whether to show a map.
    """
    parts: list[RenderableType] = [*_head(document, width), *_steered(document)]
    if document["away"] is not None:
        parts.append(Text("the broker is away: this is the last that was known", "bold red"))
    hosts = _hosts(document, width, min(MOST_HOSTS, max(3, height // 3)))
    parts += hosts or [Text(NO_WORKERS)]
    maps = [row for row in document["maps"].values() if row["ended"] is None and is_wanted(row)]
    maps.sort(key=lambda row: (-row["cores"], row["id"]))
    failures = sorted(document["failures"].values(), key=lambda row: -row["last"])[:3]
    room = max(1, height - len(parts) - len(failures) - 6)
    parts.append(Text())
    if maps:
        parts.append(maps_table(maps[:room], document["now"], width=width))
        more = max(0, len(maps) - room) + document["more"]
        if more:
            parts.append(Text(f"{more:,} more", "dim"))
    else:
        parts.append(Text("no map is open", "dim"))
    if failures:
        parts += [Text(), Text("latest failures", "dim")]
        parts += [_failure(row, document["now"]) for row in failures]
    return Group(*parts)


def _head(document: Mapping[str, Any], width: int) -> list[Text]:
    """Say how the pool does, in as many lines as the terminal's width asks for."""
    totals = document["totals"]
    figures = [
        Text(f"pool {document['pool']}", "bold"),
        Text(f"{totals['busy']:,} of {totals['cores']:,} cores busy"),
        Text(f"{number(totals['rate'])} items/s"),
    ]
    if totals["p50"] is not None:
        express = f"express {seconds(totals['p50'])} p50, {seconds(totals['p99'])} p99"
        figures.append(Text(express))
    if totals["waiting"]:
        waiting = f"{seconds(totals['waiting_seconds'])} ({number(totals['waiting'])} items)"
        figures.append(Text(f"queue {waiting}"))
    if totals["refused"]:
        figures.append(Text(f"{totals['refused']} refused in the last minute", "red"))
    lines = [figures[0]]
    for figure in figures[1:]:
        if len(lines[-1]) + len(GAP) + len(figure) > width:
            lines.append(figure)
        else:
            lines[-1].append(GAP).append_text(figure)
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return lines


def _steered(document: Mapping[str, Any]) -> list[Text]:
    """Say what is paused or limited, in one line."""
    found = ["the pool is paused"] if document["paused"] else []
    for row in document["functions"].values():
        if row["paused"]:
            found.append(f"{row['name']} is paused")
        if row["limit"] is not None:
            found.append(f"{row['name']} has at most {shown_cores(row['limit'])}")
    text = harmless(", ".join(found))
    return [Text(text, "yellow", no_wrap=True, overflow="ellipsis")] if found else []


def _hosts(document: Mapping[str, Any], width: int, most: int) -> list[RenderableType]:
    """Draw the cores of some hosts, those in trouble first, and the functions' marks."""
    names = {row["slot"]: harmless(name) for name, row in document["functions"].items()}
    slots = letters(names)
    rows: list[RenderableType] = []
    hosts = [harmless(row["host"]) for row in document["hosts"].values()]
    wide = min(24, max(map(len, hosts), default=0))
    chosen = sorted(document["hosts"].items(), key=lambda item: item[1]["state"] == "up")
    for agent, host in chosen[:most]:
        line = Text(no_wrap=True, overflow="ellipsis")
        name = harmless(host["host"])
        line.append(f"{name:{wide}.{wide}} ", "" if host["state"] == "up" else "red")
        for cell in document["cells"].get(agent, "")[: max(8, width - wide - 14)]:
            line.append(*mark(cell, slots))
        if host["state"] != "up":
            line.append(f" {harmless(host['state'])}", "red")
        rows.append(line)
    if len(hosts) > most:
        rows.append(Text(f"{len(hosts) - most:,} more hosts", "dim"))
    if rows and slots:
        legend = Text(no_wrap=True, overflow="ellipsis")
        for slot in sorted(slots):
            legend.append(*mark(chr(FIRST_SLOT + slot), slots))
            legend.append(f" {names[slot]}  ")
        rows.append(legend)
    return rows


def letters(names: Mapping[int, str]) -> dict[int, str]:
    """Return a letter for each function: one that no earlier one has, while there are any."""
    found: dict[int, str] = {}
    for slot, name in sorted(names.items()):
        own = [letter for letter in name.upper() if letter.isalnum()]
        taken = set(found.values())
        found[slot] = next((letter for letter in own if letter not in taken), (own or ["#"])[0])
    return found


def mark(cell: str, slots: Mapping[int, str]) -> tuple[str, str]:
    """Return the character and the style of a core. slots: the letter of each function's slot."""
    if cell in MARKS:
        return MARKS[cell]
    slot = ord(cell) - FIRST_SLOT
    return slots.get(slot, "#"), f"bold {COLOURS[slot]}" if slot < len(COLOURS) else "bold"


def maps_table(
    maps: Sequence[Mapping[str, Any]], now: float, id_length: int = 8, width: int = WIDE
) -> Table:
    """Make the table of maps, each with the last ``id_length`` characters of its id.

    Args:
        now: Time of the view.
        width: Columns of the terminal. A narrow one has the most important figures; figures are
            never cut, names may be.
    """
    columns = [
        ("map", "left", [as_cell(row["id"][-id_length:]) for row in maps]),  # To be typed.
        ("kind", "left", [as_cell(row["kind"]) for row in maps]),
        ("function", "left", [as_cell(row["function"]) for row in maps]),
        ("state", "left", [_state(row) for row in maps]),
        ("progress", "left", [progress(row, is_drawn=width >= MEDIUM) for row in maps]),
        ("done", "right", [Text(f"{row['done']:,}") for row in maps]),
        ("total", "right", [Text(_count(row["total"])) for row in maps]),
        ("failed", "right", [_failed(row) for row in maps]),
        ("items/s", "right", [Text(number(row["rate"])) for row in maps]),
        ("left", "right", [Text(_left(row)) for row in maps]),
        ("cores", "right", [Text(number(row["cores"])) for row in maps]),
        ("oldest", "right", [Text(_oldest(row, now)) for row in maps]),
        ("waits for", "left", [as_cell(row["waits"]) for row in maps]),
        ("labels", "left", [as_cell(shown_labels(row["labels"])) for row in maps]),
    ]
    hidden: tuple[str, ...] = ()
    if width < WIDE:
        hidden = ("done", "total", "labels")
    if width < MEDIUM:
        hidden += ("kind", "state", "oldest")
    shown = [column for column in columns if column[0] not in hidden]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head, justify, cells in shown:
        least = max(len(head), *map(len, cells)) if head not in CUT and cells else None
        side: Literal["left", "right"] = "right" if justify == "right" else "left"
        table.add_column(head, justify=side, no_wrap=True, min_width=least)
    for texts in zip(*(cells for *_, cells in shown), strict=True):
        table.add_row(*texts)
    return table


def _state(row: Mapping[str, Any]) -> Text:
    return as_cell(row["state"], STATE_STYLES.get(row["state"], ""))


def _failed(row: Mapping[str, Any]) -> Text:
    return Text(f"{row['failed']:,}", "red" if row["failed"] else "")


def _left(row: Mapping[str, Any]) -> str:
    return "-" if row["left"] is None else seconds(row["left"])


def _oldest(row: Mapping[str, Any], now: float) -> str:
    """Return the time for which a map's oldest chunk has been out, or the map has waited."""
    return "-" if row["oldest"] is None else seconds(max(1.0, round(now - row["oldest"])))


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def progress(row: Mapping[str, Any], *, is_drawn: bool = True) -> Text:
    """Draw a map's progress; of a stream, whose total is unknown, nothing can be drawn."""
    done, total = row["done"], row["total"]
    if not total:
        return Text("a stream" if total is None else "", "dim")
    share = f"{min(100, 100 * done // total):3} %"
    if not is_drawn:
        return Text(share)
    full = min(BAR, BAR * done // total)
    text = Text("━" * full, "yellow")
    text.append("━" * (BAR - full), "bright_black")
    return text.append(f" {share}")


def _failure(row: Mapping[str, Any], now: float) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"{row['count']:,} ", "red")
    message = " ".join(row["message"].split())
    text.append(harmless(f"{row['function']} {row['type']}: {message}"))
    return text.append(f"  {seconds(max(1.0, round(now - row['last'])))} ago", "dim")


def number(value: float) -> str:
    """Return a number as people read it: three digits are enough above a million."""
    if value < 10 and value % 1:
        return f"{value:.1f}"
    if value < 1e6:
        return f"{value:,.0f}"
    return f"{value / 1e6:.3g} M" if value < 1e9 else f"{value / 1e9:.3g} G"


def seconds(value: float) -> str:
    """Return a time as people read it."""
    if value < 0.001:
        return f"{value * 1e6:.3g} µs"
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    if value < 60:
        return f"{value:.3g} s"
    if value < 3600:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.1f} h"
