"""Processes of Python whose wall clock is wrong, while the machine's is right."""

from __future__ import annotations

from pathlib import Path

DAY = 86_400.0  # Seconds.

# Run at the start of each process, and of all that it starts.
SITE = """
import datetime, os, time

shift = float(os.environ["WRONG_BY"])
right, right_ns, right_gmtime = time.time, time.time_ns, time.gmtime
time.time = lambda: right() + shift
time.time_ns = lambda: right_ns() + int(shift * 1e9)
time.gmtime = lambda seconds=None: right_gmtime(time.time() if seconds is None else seconds)


class Wrong(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls):
        return cls.now(datetime.UTC).replace(tzinfo=None)


datetime.datetime = Wrong
"""


def wrong_by(place: Path, seconds: float) -> dict[str, str]:
    """Return the environment of processes whose clock is wrong by this much.

    Args:
        place: A directory for the code that they load.
    """
    place.mkdir(exist_ok=True)
    (place / "sitecustomize.py").write_text(SITE, encoding="utf-8")
    return {"PYTHONPATH": str(place), "WRONG_BY": str(seconds)}
