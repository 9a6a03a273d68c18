"""Line charts as SVG, without a library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 40, 50
COLOURS = ("#1b6ca8", "#d1603d", "#3f8f4f", "#8a4fa3", "#b08900", "#555555")

Line = Sequence[tuple[float, float]]  # Points, from left to right.


def chart(title: str, x: str, y: str, lines: Mapping[str, Line], *, logarithmic: bool) -> str:
    """Draw named lines over a common axis.

    Args:
        x, y: What the axes show, with units.
        logarithmic: Whether the x axis is.
    """
    points = [point for line in lines.values() for point in line]
    if not points:
        raise ValueError("a chart needs points")
    scale = math.log10 if logarithmic else float
    lows, highs = min(scale(px) for px, _ in points), max(scale(px) for px, _ in points)
    top = _round_up(max(py for _, py in points))
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(px: float, py: float) -> tuple[float, float]:
        share = (scale(px) - lows) / (highs - lows) if highs > lows else 0.5
        return LEFT + across * share, TOP + down * (1 - py / top)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(WIDTH / 2, 20, title, size=15),
        _text(LEFT + across / 2, HEIGHT - 12, x),
        f'<g transform="rotate(-90 16 {TOP + down / 2:g})">'
        + _text(16, TOP + down / 2, y)
        + "</g>",
    ]
    for step in range(5):
        value = top * step / 4
        level = place(points[0][0], value)[1]
        parts.append(
            f'<path d="M{LEFT} {level:.1f}H{LEFT + across}" stroke="#dddddd" fill="none"/>'
            + _text(LEFT - 6, level + 4, f"{value:g}", anchor="end")
        )
    for value in sorted({px for px, _ in points}):
        parts.append(_text(place(value, 0)[0], TOP + down + 18, f"{value:g}"))
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        placed = [place(*point) for point in line]
        path = "L".join(f"{px:.1f} {py:.1f}" for px, py in placed)
        parts.append(f'<path d="M{path}" stroke="{colour}" stroke-width="2" fill="none"/>')
        parts += [
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>' for px, py in placed
        ]
        at = TOP + 16 * number + 6
        parts.append(
            f'<rect x="{LEFT + across + 16}" y="{at - 9}" width="10" height="10" fill="{colour}"/>'
            + _text(LEFT + across + 32, at, name, anchor="start")
        )
    return "\n".join([*parts, "</svg>\n"])


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 4, 5 and 10 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 4, 5, 10) if power * step >= value * 0.999999)


def _text(x: float, y: float, text: str, *, anchor: str = "middle", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">'
        f"{escape(text)}</text>"
    )
