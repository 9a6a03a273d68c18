"""Functions that raise each kind of exception; those below ``seen`` are made of these names."""

from __future__ import annotations

import threading
from typing import Any

from jetmap import task


class Plain(ValueError):
    """An exception like most."""


class Differing(KeyError):
    """Its constructor takes other arguments than it keeps."""

    def __init__(self, code: int, *, where: str) -> None:
        super().__init__(f"{code} at {where}")
        self.code = code


class Locked(OSError):
    """It holds what cannot be pickled."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(number, text)
        self.lock = threading.Lock()


class Refusing(ValueError):
    """It cannot be made again where it arrives."""

    def __reduce__(self) -> Any:
        return _refuse, ()


REFUSED: list[str] = []


def _refuse() -> None:
    REFUSED.append("loaded")
    raise RuntimeError("not again")


def hidden() -> Exception:
    class Hidden(LookupError):
        """Its name leads nowhere."""

    return Hidden("in here")


def chained() -> Exception:
    try:
        dict[str, int]()["a"]
    except KeyError as error:
        try:
            raise Plain("outer") from error
        except Plain as outer:
            return outer
    raise AssertionError


MAKERS: dict[str, Any] = {
    "plain": lambda: Plain("it cannot", 7),
    "builtin": lambda: ZeroDivisionError("by nothing"),
    "system": lambda: FileNotFoundError(2, "No such file", "/there"),
    "decode": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad start"),
    "differing": lambda: Differing(3, where="home"),
    "locked": lambda: Locked(5, "held"),
    "refusing": lambda: Refusing("no"),
    "hidden": hidden,
    "group": lambda: ExceptionGroup("both", [Plain("a"), Differing(1, where="b")]),
    "exit": lambda: SystemExit(3),
    "chained": chained,
    "noted": lambda: _noted(),
}


def _noted() -> Exception:
    error = Plain("with a note")
    error.add_note("of its own")
    return error


@task(name="failing.fail")
def fail(name: str) -> int:
    raise MAKERS[name]()
