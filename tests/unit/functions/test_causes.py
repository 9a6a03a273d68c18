"""Exceptions on their way to the caller: themselves, or the nearest class that can be had."""

from __future__ import annotations

import builtins
from typing import Any

import msgspec
import pytest

import failing_functions
from failing_functions import MAKERS, Differing, Locked, Plain, Refusing
from jetmap.functions.causes import PICKLE_BYTES, HeldCause, cause_of, exception_of
from jetmap.wire.messages import Cause, ErrorRecord, encode

# What arrives where pickles are loaded, and where they are not.
CLASSES: dict[str, tuple[type[BaseException] | str, type[BaseException]]] = {
    "plain": (Plain, ValueError),
    "builtin": (ZeroDivisionError, ZeroDivisionError),
    "system": (FileNotFoundError, FileNotFoundError),
    "decode": (UnicodeDecodeError, UnicodeError),
    "differing": (Differing, KeyError),
    "locked": (Locked, OSError),
    "refusing": (Refusing, ValueError),
    "hidden": ("Hidden", LookupError),
    "group": (ExceptionGroup, Exception),
    "exit": (SystemExit, SystemExit),
    "chained": (Plain, ValueError),
    "noted": (Plain, ValueError),
}


def arrived(error: BaseException, *, trusted: bool = True) -> Any:
    """The exception as its caller gets it, through the wire."""
    cause = cause_of(error, pickled=trusted)
    record = ErrorRecord(3, "raised", type(error).__name__, str(error), "Traceback …", None, cause)
    return exception_of(msgspec.msgpack.decode(encode(record), type=ErrorRecord), trusted=trusted)


@pytest.mark.parametrize("name", MAKERS)
def test_each_arrives_where_pickles_are_loaded(name: str) -> None:
    expected, _ = CLASSES[name]
    error = arrived(MAKERS[name]())
    if isinstance(expected, str):
        assert type(error).__name__ == expected and isinstance(error, LookupError)
    else:
        assert type(error) is expected
    assert error.__notes__[-1] == "Traceback …"


@pytest.mark.parametrize("name", MAKERS)
def test_elsewhere_its_nearest_builtin_base_stands_for_it(name: str) -> None:
    _, expected = CLASSES[name]
    error = arrived(MAKERS[name](), trusted=False)
    assert type(error) is expected and error.__notes__ == ["Traceback …"]
    assert "Plain: ('it cannot', 7)" in str(error) or name != "plain"


def test_what_it_holds_arrives() -> None:
    assert arrived(Plain("it cannot", 7)).args == ("it cannot", 7)
    differing = arrived(Differing(3, where="home"))
    assert (differing.args, differing.code) == (("3 at home",), 3)
    missing = arrived(FileNotFoundError(2, "No such file", "/there"))
    assert (missing.errno, missing.filename) == (2, "/there")
    group = arrived(MAKERS["group"]())
    assert [type(error) for error in group.exceptions] == [Plain, Differing]
    assert group.exceptions[1].code == 1
    assert arrived(MAKERS["noted"]()).__notes__ == ["of its own", "Traceback …"]
    assert arrived(SystemExit(3)).code == 3


def test_a_pickle_is_never_loaded_without_trust() -> None:
    calls = failing_functions.REFUSED
    calls.clear()
    cause = cause_of(Refusing("no"), pickled=True)
    assert cause.pickled
    record = ErrorRecord(0, "raised", "Refusing", "no", None, None, cause)
    assert type(exception_of(record, trusted=False)) is ValueError and calls == []
    # Here it is; it makes nothing, so its class stands for it.
    assert type(exception_of(record, trusted=True)) is Refusing and calls == ["loaded"]


def test_a_module_is_never_imported_without_trust(tmp_path: Any, monkeypatch: Any) -> None:
    (tmp_path / "imported_for_a_cause.py").write_text("raise SystemExit(1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    for trusted in (False, True):  # And a module that fails to import does no harm.
        cause = Cause(["imported_for_a_cause:Error", "builtins:KeyError"])
        record = ErrorRecord(0, "raised", "Error", "'a'", None, None, cause)
        assert type(exception_of(record, trusted=trusted)) is KeyError


def test_names_that_lead_to_other_things() -> None:
    for name in ("builtins:eval", "builtins:int", "os:system", "jetmap:nothing", "", ":", "a"):
        record = ErrorRecord(0, "raised", "Odd", "text", None, None, Cause([name]))
        error = exception_of(record, trusted=True)
        assert type(error) is Exception and error.args == ("Odd: text",)


@pytest.mark.parametrize("data", [b"x", b"\x80\x05N.", b"\x80\x05K\x01.", b"cos\nnothing\n."])
def test_pickles_that_are_none(data: bytes) -> None:
    record = ErrorRecord(
        0, "raised", "ValueError", "a", None, None, Cause(["builtins:ValueError"], data)
    )
    error = exception_of(record, trusted=True)
    assert type(error) is ValueError and error.args == ("a",)


def test_large_ones_travel_without_what_they_hold() -> None:
    assert not cause_of(ValueError("x" * PICKLE_BYTES), pickled=True).pickled
    assert cause_of(ValueError("x" * 1000), pickled=True).pickled
    assert not cause_of(ValueError("x"), pickled=False).pickled


def test_one_that_ends_the_program_when_it_is_pickled_has_a_stand_in() -> None:
    class Leaving(ValueError):
        def __reduce__(self) -> Any:
            raise KeyboardInterrupt

    assert type(arrived(Leaving("no"))) is ValueError


def test_one_that_takes_no_notes_arrives() -> None:
    class Frozen(ValueError):
        def add_note(self, note: str) -> None:
            raise AttributeError("frozen")

    held = ErrorRecord(0, "raised", "Frozen", "", "Traceback", None, HeldCause([], error=Frozen()))
    assert type(exception_of(held, trusted=True)) is Frozen
    assert type(arrived(Frozen("a"))).__name__ == "Frozen"


def test_records_of_older_workers_have_none() -> None:
    assert exception_of(ErrorRecord(0, "raised", "ValueError", "a"), trusted=True) is None


def test_each_builtin_exception_has_a_stand_in() -> None:
    for name, cls in vars(builtins).items():
        if isinstance(cls, type) and issubclass(cls, BaseException):
            record = ErrorRecord(0, "raised", name, "text", None, None, Cause([f"builtins:{name}"]))
            assert isinstance(exception_of(record, trusted=False), Exception | cls)
