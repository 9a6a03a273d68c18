"""Changes of limits and labels that people make to a job that is not over. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypedDict

from jetmap import bounds
from jetmap.dispatch.tolerance import Tolerance

if TYPE_CHECKING:
    from .record import Record


class JobSteering(TypedDict, total=False):
    """The pause and the cores of a job; what is not named stays as it is.

    paused: whether nothing more of it is sent. max_parallel: as in ``JobChanges``.
    """

    paused: bool
    max_parallel: int | None


class JobChanges(TypedDict, total=False):
    """Changes of a job; all that they do not name stays as it is.

    max_parallel: cores that it may use at most; None: no limit of its own. max_failed: items that
    may fail, or their share; None: any number, but one makes it a failed job. labels: values of
    labels, by name; None as a value removes that label, None in the place of them all removes all.
    """

    max_parallel: int | None
    max_failed: int | str | None
    labels: Mapping[str, str | None] | None


def new_values(record: Record, changes: JobChanges) -> dict[str, object]:
    """Return the new values of the record's fields.

    Raises:
        TypeError: A value is of another type, or something else is to be changed.
        ValueError: A value is out of bounds, or ``max_failed`` is a share of an unknown number.
    """
    if unknown := changes.keys() - JobChanges.__annotations__.keys():
        known = ", ".join(JobChanges.__annotations__)
        raise TypeError(f"{bounds.shown(min(unknown))} of a job does not change: {known} do")
    new: dict[str, object] = {}
    if "max_parallel" in changes:
        cores = changes["max_parallel"]
        new["max_parallel"] = bounds.PARALLEL.check_optional("max_parallel", cores)
    if "max_failed" in changes:
        tolerance = Tolerance.of(changes["max_failed"])
        if tolerance is not None:
            tolerance.check_length(record.total)
        new["max_failed"] = None if tolerance is None else tolerance.text
    if "labels" in changes:
        new["labels"] = _merged(record.labels, changes["labels"])
    return new


def _merged(labels: Mapping[str, str], changes: object) -> dict[str, str]:
    """Change labels as a JSON Merge Patch (RFC 7396) does."""
    if not isinstance(changes, Mapping):
        return bounds.check_labels(changes)
    for name, value in changes.items():  # A name that cannot be one is an error here, too.
        bounds.check_labels({name: "" if value is None else value})
    merged = {**labels, **changes}
    return bounds.check_labels({name: value for name, value in merged.items() if value is not None})
