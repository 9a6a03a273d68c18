"""The controls of a pool: what people have paused or limited. No I/O, no clock.

One key of the pool's bucket holds them all, as JSON, so that they survive every process. Each
limited function has another key, which says how its cores are shared among dispatchers.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from .messages import WireMessage

KEEP = -1  # A limit that stays as it is.


class FunctionControl(msgspec.Struct, frozen=True, omit_defaults=True):
    """One function's controls.

    Attributes:
        paused: Whether nothing new of it is sent.
        max_parallel: Cores that it may use at most, over the whole pool; None: no limit but that
            of its code.
    """

    paused: bool = False
    max_parallel: Annotated[int, msgspec.Meta(ge=1)] | None = None


class PoolControl(msgspec.Struct, frozen=True, omit_defaults=True):
    """The controls of a pool.

    Attributes:
        paused: Whether nothing new of any function is sent.
        functions: The functions that are paused or limited.
    """

    paused: bool = False
    functions: dict[str, FunctionControl] = {}

    def of(self, function: str) -> FunctionControl:
        return self.functions.get(function, FREE)

    @property
    def limits(self) -> dict[str, int]:
        """The limits of functions that have one."""
        return {n: c.max_parallel for n, c in self.functions.items() if c.max_parallel is not None}

    def steered(
        self, function: str | None, *, paused: bool | None = None, max_parallel: int | None = KEEP
    ) -> PoolControl:
        """Return the controls after a change of a function, or of the pool.

        Args:
            function: None: the whole pool, which can only be paused.
            paused: None: as it is.
            max_parallel: None: no limit but that of its code; KEEP: as it is.
        """
        if function is None:
            return self if paused is None else msgspec.structs.replace(self, paused=paused)
        now = self.of(function)
        then = FunctionControl(
            now.paused if paused is None else paused,
            now.max_parallel if max_parallel == KEEP else max_parallel,
        )
        functions = {name: c for name, c in self.functions.items() if name != function}
        if then != FREE:
            functions[function] = then
        return msgspec.structs.replace(self, functions=dict(sorted(functions.items())))


class Seats(msgspec.Struct, frozen=True, omit_defaults=True):
    """One dispatcher's part of a function's limit.

    Attributes:
        held: Cores that it may use.
        wants: Whether it could use more.
        turn: Grows with each time that anybody took some, so that the longest wait comes first.
    """

    held: int = 0
    wants: bool = False
    turn: int = 0


class Steer(WireMessage):
    """A notice from one dispatcher to all.

    Attributes:
        dispatcher: The sender, which is alive.
        key: The key of the bucket that it has written; empty: none.
    """

    dispatcher: str
    key: str = ""


FREE = FunctionControl()
read_control = msgspec.json.Decoder(PoolControl).decode
read_seats = msgspec.json.Decoder(dict[str, Seats]).decode
read_steer = msgspec.msgpack.Decoder(Steer).decode
write_json = msgspec.json.Encoder(order="deterministic").encode
