"""The bounds of every number that comes from callers, options and settings.

The HTTP parameters, their OpenAPI document, Python arguments, command-line options and settings
all take their bounds from here. The longest time is far below the 9.2e9 seconds that fit into a
64-bit count of nanoseconds, which NATS uses.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

CENTURY = 3_153_600_000  # Seconds of a hundred years of 365 days.
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d{1,9})?", re.ASCII | re.IGNORECASE)
_MOST_DIGITS = 400  # Characters of a number in text; the largest float has 309.
_SHOWN = 40  # Characters of a wrong value in an error message.


class Bound:
    """A kind of number, from ``least`` to ``most``, both included."""

    # Not a dataclass: task files import this module, which must be quick.
    __slots__ = ("least", "most", "unit")

    def __init__(self, least: float, most: float, unit: str = "a number of seconds") -> None:
        self.least = least
        self.most = most
        self.unit = unit

    def check(self, name: str, value: object) -> float:
        """Return a Python argument as a float.

        Raises:
            TypeError: It is not a number; a bool is not, either.
            ValueError: It is out of bounds.
        """
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name} must be {self}, not {shown(value)}")
        if not self.least <= value <= self.most:  # type: ignore[operator]  # NaN fails, too.
            raise ValueError(f"{name} must be {self}, not {shown(value)}")
        return float(value)

    def check_optional(self, name: str, value: object) -> float | None:
        """Check a value unless it is None."""
        return None if value is None else self.check(name, value)

    def parse(self, text: str) -> float | None:
        """Read a number from text; None if it is not a number, or is out of bounds."""
        if len(text) > _MOST_DIGITS or not _NUMBER.fullmatch(text):
            return None
        value = float(text)
        return value if self.least <= value <= self.most else None

    def schema(self, **more: Any) -> dict[str, Any]:
        """Return the bound as JSON Schema."""
        return {"type": "number", "minimum": self.least, "maximum": self.most, **more}

    def __str__(self) -> str:
        return f"{self.unit} from {_number(self.least)} to {_number(self.most)}"


class Whole(Bound):
    """A kind of whole number."""

    __slots__ = ()
    least: int
    most: int

    def __init__(self, least: int, most: int, unit: str = "a whole number") -> None:
        super().__init__(least, most, unit)

    def check(self, name: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name} must be {self}, not {shown(value)}")
        is_whole = isinstance(value, Integral)
        if not (is_whole and self.least <= value <= self.most):  # type: ignore[operator]
            raise ValueError(f"{name} must be {self}, not {shown(value)}")
        return int(value)  # type: ignore[call-overload, no-any-return]

    def check_optional(self, name: str, value: object) -> int | None:
        return None if value is None else self.check(name, value)

    def parse(self, text: str) -> int | None:
        if len(text) > _MOST_DIGITS or not (text.isascii() and text.isdigit()):
            return None
        value = int(text)
        return value if self.least <= value <= self.most else None

    def schema(self, **more: Any) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.least, "maximum": self.most, **more}


def _number(value: float) -> str:
    """Format a number with thousands separators, without a fraction of zero."""
    return f"{value:,.15g}" if value != int(value) else f"{int(value):,}"


def shown(value: object) -> str:
    """Format a wrong value for an error message, cut short."""
    if isinstance(value, Real) and not isinstance(value, float) and _is_huge(value):
        return "a larger number"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _is_huge(value: Real) -> bool:
    """Return whether it is an integer that Python may refuse to print."""
    return isinstance(value, int) and value.bit_length() > 128


# Times.
TIMEOUT = Bound(0.001, CENTURY)  # Limit for a map, a job or an item.
TTL = Bound(1, CENTURY)  # Time that a job is kept after its end.
SESSION = Bound(60, 31_536_000)  # Time that a login in a browser lasts, up to a year.
SIGNED = Whole(1, 3600, "a number of seconds")  # Time in which a signed address can be opened.
POLL = Bound(0, 600)  # Time that an HTTP request waits for new outcomes.
PATIENCE = Bound(0, CENTURY)  # Time that a Python caller waits.
CONNECTION = Bound(0.05, 86_400)  # Time that a client may take for one step of a request.
DURATION = Bound(0.000_001, CENTURY)
GRACE = Bound(0, CENTURY)
BACKOFF = Bound(0, CENTURY)  # Time between two tries of an item.
LINGER = Bound(0, 60)  # Time that a batch waits for more items.

# Counts.
COUNT = Whole(1, (1 << 53) - 1)  # All integers up to here are exact in JSON.
COUNT_OR_ZERO = Whole(0, (1 << 53) - 1)
ATTEMPTS = Whole(1, 1000)
RETRIES = Whole(0, 1000)
BATCH = Whole(1, 16_384, "a number of items")  # Items of one call of a function.
WORKERS = Whole(1, 4096)
PARALLEL = Whole(1, 1_000_000, "a number of cores")  # Cores that a map, job or function may use.
PARALLEL_OR_NONE = Whole(0, PARALLEL.most, PARALLEL.unit)  # 0: no limit of its own.
RUN = Whole(1, 100)  # Number of a run of a job.
START = Whole(0, (1 << 53) - 1)  # Index of a page's first item.
PAGE_ITEMS = Whole(1, 10_000)
PAGE_JOBS = Whole(1, 1000)
LISTED_JOBS = Whole(1, 1_000_000)  # Jobs listed by the command line, from several pages.
REPLICAS = Whole(0, 5)
SHARDS = Whole(0, 32)  # Work streams of a pool.
NICE = Whole(0, 19)
DEPTH = Whole(1, 10_000)
LINES = Whole(0, 10_000)  # Lines a second in the log.
PORT = Whole(0, 65535)

# Sizes and shares.
SIZE = Whole(1, 1 << 50, "a number of bytes")
SIZE_OR_ZERO = Whole(0, 1 << 50, "a number of bytes")
HEAD = Whole(1 << 10, 16 << 20, "a number of bytes")  # Size of a request without its body.
RATE = Whole(0, 1 << 30, "a number of bytes a second")
WEIGHT = Bound(0.001, 100, "a number")


def finite(value: float, bound: Bound) -> float:
    """Clamp a value to its bound, for records that an earlier version accepted."""
    return bound.most if math.isnan(value) else min(max(value, bound.least), bound.most)


MOST_KEY = 255  # Characters of an idempotency key.


def _is_unicode(text: str) -> bool:
    """Return whether a text can travel; one with half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_key(key: object) -> str | None:
    """Return an idempotency key, or None. Raises TypeError or ValueError for what is not one."""
    if key is not None and not isinstance(key, str):
        raise TypeError(f"key must be a text, not {shown(key)}")
    if key is not None and not (0 < len(key) <= MOST_KEY and _is_unicode(key)):
        raise ValueError(f"key must be a text of 1 to {MOST_KEY} characters, not {shown(key)}")
    return key


# Labels of one map or job, and the form of their names and values.
MOST_LABELS = 8
_LABEL = re.compile(r"[A-Za-z0-9_.-]{1,40}")
_LABEL_VALUE = re.compile(r"[^,\u0000-\u001f\u007f-\u009f]{0,100}")
_ONE = f"{_LABEL.pattern}={_LABEL_VALUE.pattern}"
LABELS_PATTERN = rf"^({_ONE}(,{_ONE}){{0,{MOST_LABELS - 1}}})?$"
LABEL_NAME_PATTERN = f"^{_LABEL.pattern}$"
LABEL_VALUE_PATTERN = f"^{_LABEL_VALUE.pattern}$"
LABELS = (
    f"at most {MOST_LABELS} labels; a name has 1 to 40 letters, digits, dots, dashes and "
    "underscores, a value at most 100 characters, without commas and control characters"
)


def check_labels(labels: object) -> dict[str, str]:
    """Return the labels of a map or job as a dictionary of their own; None: there are none.

    Raises:
        TypeError: They are not a mapping from text to text.
        ValueError: There are too many, or one is malformed.
    """
    if labels is None:
        return {}
    if not isinstance(labels, Mapping):
        raise TypeError(
            f'labels must be a mapping such as {{"customer": "7"}}, not {shown(labels)}'
        )
    found = dict(labels)
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"labels must be text: not {shown(name)} with {shown(value)}")
        if not _LABEL.fullmatch(name):
            raise ValueError(f"the label {shown(name)} is malformed: {LABELS}")
        if not (_LABEL_VALUE.fullmatch(value) and _is_unicode(value)):
            raise ValueError(f"the value {shown(value)} of label {name} is malformed: {LABELS}")
    if len(found) > MOST_LABELS:
        raise ValueError(f"{len(found)} labels are too many: {LABELS}")
    return found


def parse_labels(text: str) -> dict[str, str]:
    """Read labels such as ``customer=7,team=a``; the last of a name counts. Raises ValueError."""
    found: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        name, separator, value = part.partition("=")
        if not separator:
            raise ValueError(f"{shown(part)} is not a label: write NAME=VALUE")
        found[name] = value
    return check_labels(found)
