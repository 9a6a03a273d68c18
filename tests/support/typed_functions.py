"""Functions of pydantic types; imported by workers at their first use."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from jetmap import task


class Point(BaseModel):
    x: int
    y: int = 0
    name: str | None = None


@task
def mirrored(point: Point) -> Point:
    return Point(x=point.y, y=point.x, name=point.name)


@task
def root(n: Annotated[int, Field(ge=0)]) -> float:
    return float(n**0.5)
