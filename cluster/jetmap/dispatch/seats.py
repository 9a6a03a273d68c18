"""Share a function's limit of cores among dispatchers. No I/O, no clock.

Each dispatcher that runs the function holds seats, one for each chunk that it may have out. All are
in one document that is written by compare-and-set, so together they never exceed the limit. Whoever
has a turn behind it gives up what is above its fair share while others want more, and as many as
are left over by an equal division go round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jetmap.wire.controls import Seats

NONE = Seats()


@dataclass(frozen=True)
class Allotment:
    """The next document, and what this dispatcher may have out until then.

    Attributes:
        rows: The seats of each dispatcher; equal to the present ones if there is nothing to write.
        share: Chunks that may be out once ``rows`` is written; fewer than it holds while it waits
            for some to end so that it can give up their seats.
    """

    rows: dict[str, Seats]
    share: int


def step(
    rows: Mapping[str, Seats],
    me: str,
    limit: int,
    *,
    useful: int,
    out: int,
    may_keep: bool,
    is_alive: Callable[[str], bool],
) -> Allotment:
    """Decide on this dispatcher's seats.

    Args:
        rows: The document as it is.
        me: This dispatcher.
        limit: Cores that the function may use at most, over the whole pool.
        useful: Chunks that this dispatcher has out or could send.
        out: Chunks that it has out.
        may_keep: Whether its turn goes on, in which it keeps what is above its fair share.
        is_alive: Whether another dispatcher has sent a notice lately; else its seats are free.
    """
    rest = {name: seats for name, seats in rows.items() if name != me and is_alive(name)}
    mine = rows.get(me, NONE)
    wanting = [name for name, seats in rest.items() if seats.wants]
    taken = sum(seats.held for seats in rest.values())
    sharing = sum(seats.held > 0 or seats.wants for seats in rest.values())
    fair = limit // (sharing + 1)
    # Above its share it keeps nothing that others want, or that is over the limit, after its turn.
    share = mine.held
    if taken + share > limit or (wanting and not may_keep):
        share = min(share, fair)
    if wanting:
        share = min(share, useful)
    # Chunks that are out keep their seats until they end.
    held = min(mine.held, max(share, out))
    turn = mine.turn
    free = limit - taken - held
    lacks = useful > held
    if lacks and free > 0 and share == mine.held:
        order = [(rest[name].held, rest[name].turn, name) for name in wanting]
        if min([(held, turn, me), *order])[2] == me:
            most = free if not wanting else max(1, fair - held)
            held = share = held + min(free, most, useful - held)
            turn = 1 + max((seats.turn for seats in rows.values()), default=0)
            lacks = useful > held
    row = Seats(held, lacks, turn)
    if row != NONE:
        rest[me] = row
    return Allotment(rest, min(share, held))


def without(rows: Mapping[str, Seats], me: str) -> dict[str, Seats]:
    """Return the document after a dispatcher has left."""
    return {name: seats for name, seats in rows.items() if name != me}
