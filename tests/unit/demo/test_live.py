"""The demo's live view of a running gateway."""

from __future__ import annotations

from jetmap.demo.live import MOST_CELLS, Reading, figures

METRICS = """# HELP jetmap_items_total Items that have an outcome.
jetmap_items_total {items}
jetmap_item_errors_total{{kind="raised"}} 5.0
jetmap_compute_seconds_total {seconds}
"""


def reading(at: float, items: float, seconds: float, *states: str) -> Reading:
    workers = [{"workers": [{"state": state} for state in states]}]
    return Reading.of(at, workers, METRICS.format(items=items, seconds=seconds))


def test_rates_are_those_between_two_readings() -> None:
    before = reading(10.0, 100.0, 1.0, "idle", "idle")
    now = reading(12.0, 3_100.0, 4.6, "busy", "idle")
    assert figures(before, now) == "cores ■□ 1 of 2 busy · 1,500 items/s · 1.8 times one core"


def test_a_gateway_that_was_started_again_shows_no_negative_rates() -> None:
    text = figures(reading(1.0, 100.0, 9.0, "busy"), reading(2.0, 0.0, 0.0, "starting"))
    assert "0 items/s · 0.0 times" in text and "0 of 1 busy" in text


def test_very_many_cores_are_counted_only() -> None:
    many = reading(1.0, 0.0, 0.0, *["busy"] * (MOST_CELLS + 1))
    assert "■" not in figures(many, many) and "65 of 65 busy" in figures(many, many)
