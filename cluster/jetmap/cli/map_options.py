"""Options that commands about maps and jobs share, and how they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec
import typer

from jetmap import bounds
from jetmap.bounds import Bound, shown
from jetmap.dispatch.tolerance import Tolerance
from jetmap.errors import ConfigurationError
from jetmap.logs import harmless


def within(bound: Bound) -> Callable[[str], float]:
    """Return a parser for an option's number; click's own ranges accept NaN."""

    def parse(text: str | float) -> float:  # A default comes as a number.
        found = bound.parse(str(text).strip())
        if found is None:
            raise typer.BadParameter(f"must be {bound}, not {shown(str(text))}")
        return found

    return parse


def tolerance(text: str) -> Tolerance:
    """Read the option --max-failed."""
    try:
        return Tolerance(text)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from None


def kwargs_of(text: str) -> bytes:
    """Encode keyword-only parameters. Raises ConfigurationError for anything but a JSON object."""
    try:
        msgspec.json.decode(text, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError) as exc:
        raise ConfigurationError(
            [f"--kwargs must be a JSON object such as '{{\"n\": 3}}': {exc}"]
        ) from exc
    return text.encode()


def labels_of(given: list[str] | None) -> dict[str, str]:
    """Read the labels of a command."""
    if any("," in text for text in given or ()):
        raise ConfigurationError([f"--label {','.join(given or ())}: no comma; repeat --label"])
    try:
        return bounds.parse_labels(",".join(given or ()))
    except ValueError as error:
        raise ConfigurationError([f"--label: {error}"]) from error


def shown_labels(labels: dict[str, str]) -> str:
    """Format labels for people."""
    return harmless(" ".join(f"{name}={value}" for name, value in labels.items()))


def shown_cores(count: int) -> str:
    """Format a number of cores for people."""
    return f"{count:,} core" if count == 1 else f"{count:,} cores"


LinesArgument = Annotated[
    str, typer.Argument(metavar="[FILE|-]", help="JSON lines, one item a line; - is stdin.")
]
KwargsOption = Annotated[
    str | None,
    typer.Option(
        "--kwargs",
        metavar="JSON",
        help="Keyword-only parameters of the function, as a JSON object.",
    ),
]
TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        parser=within(bounds.TIMEOUT),
        help="Limit for the whole map or job.",
    ),
]
FailedOption = Annotated[
    Tolerance | None,
    typer.Option(
        "--max-failed",
        metavar="N|N%",
        parser=tolerance,
        help="Items that may fail, or their share; one more ends the map, or fails the job.",
    ),
]
LabelOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--label", metavar="NAME=VALUE", help="A label of the map or job; may be given repeatedly."
    ),
]
ParallelOption = Annotated[
    int | None,
    typer.Option(
        "--max-parallel",
        metavar="N",
        parser=within(bounds.PARALLEL_OR_NONE),
        help="Cores that the map or job may use at most; 0: no limit of its own.",
    ),
]
