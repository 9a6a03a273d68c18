"""A registered function: its location and its types."""

from __future__ import annotations

import contextlib
import os
import re
import typing
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from jetmap import bounds

from .per_worker import PerWorker, marks_of
from .signatures import (
    REQUIRED,
    annotations_of,
    evaluate,
    has_no_file,
    innermost,
    item_parameter,
    keyword_only,
    module_of,
    renewed,
    scope_of,
)

if TYPE_CHECKING:
    from types import FrameType

    from jetmap.codecs import Codec, Parameter
    from jetmap.wire.messages import BatchTerms
    from jetmap.wire.presence import FunctionInfo

    from .batching import Batching
    from .retries import RetryPolicy

NAME = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)


class Function:
    """A registered function. Its types are resolved at their first use.

    Args:
        retry: When it is called again for an item for which it raised; None: never.
        batching: How many items one call takes; None: one, and not a list.
        max_parallel: Cores that it may use at most, over the whole pool; None: any number.
        hints: Types of its annotations, by parameter, as far as they are known already.

    Attributes:
        name: Name in calls.
        module: Module in which a worker finds it: the dotted name, also if the module was started
            with ``python -m``.
        qualname: Name in that module.
        file: File of that module, or None.
        stamp: State of the file when the function was defined.
        by_value: Whether it was defined without a file (REPL, notebook, ``python -c``).
        local: Whether it was defined inside another function.
        reports_each: Whether each value leaves the worker before the next item begins. The
            callable says so by an attribute of this name.
    """

    __slots__ = (
        "__weakref__", "_codecs", "_hints", "_marks", "_pickling", "_strong", "_untyped", "_weak",
        "attempts", "batching", "by_value", "doc", "file", "local", "max_parallel", "module",
        "name", "parameter", "qualname", "reports_each", "retry", "spec", "stamp", "timeout",
    )  # fmt: skip

    def __init__(
        self,
        callable: Callable[..., Any],
        *,
        name: str | None = None,
        timeout: float | None = None,
        attempts: int | None = None,
        retry: RetryPolicy | None = None,
        batching: Batching | None = None,
        max_parallel: int | None = None,
        hints: Mapping[str, Any] | None = None,
    ) -> None:
        scope = scope_of(innermost(callable))
        self.parameter = item_parameter(callable)
        self.qualname: str = getattr(callable, "__qualname__", callable.__name__)
        self.name = _check_name(callable.__name__ if name is None else name, self.qualname)
        self.timeout = bounds.TIMEOUT.check_optional("timeout", timeout)
        self.attempts = bounds.ATTEMPTS.check_optional("attempts", attempts)
        self.max_parallel = bounds.PARALLEL.check_optional("max_parallel", max_parallel)
        self.retry = retry
        self.batching = batching
        self.doc: str = getattr(callable, "__doc__", None) or ""
        self.module = module_of(callable, scope)
        self.spec = scope.get("__spec__")
        self.by_value = has_no_file(callable, scope)
        self.local = "<locals>" in self.qualname
        self.reports_each: bool = getattr(callable, "reports_each", False)
        file = scope.get("__file__")
        self.file: str | None = None if self.by_value or file is None else os.path.abspath(file)  # noqa: PTH100
        self.stamp = file_stamp(self.file)
        self._codecs: dict[str, Codec] = {}
        self._pickling: dict[bool, Function] = {}
        self._untyped: list[str] | None = None  # None: not yet known.
        self._hints: dict[str, Any] = dict(hints or {})
        self._marks: dict[str, PerWorker] | None = None  # None: not yet known.
        self._strong: Callable[..., Any] | None = callable
        self._weak: weakref.ref[Callable[..., Any]] | None = None

    def __repr__(self) -> str:
        return f"<Function {self.name} of {self.module}>"

    @property
    def callable(self) -> Callable[..., Any]:
        """The function itself. Raises ReferenceError if it was local and is gone."""
        f = self._peek()
        if f is None:
            raise ReferenceError(f"the local function {self.qualname} no longer exists")
        return f

    @property
    def alive(self) -> bool:
        return self._peek() is not None

    @property
    def scope(self) -> dict[str, Any]:
        """The globals of the module that defines it."""
        return scope_of(innermost(self.callable))

    @property
    def item(self) -> Codec:
        """The codec of the item's type. Raises TypeError if that is unknown or unsupported."""
        return self._codec("item", self.parameter, output=False)

    @property
    def value(self) -> Codec:
        """The codec of the value's type. Raises TypeError if that is unknown or unsupported."""
        return self._codec("value", "return", output=True)

    @property
    def kwargs(self) -> Codec:
        """The codec of the keyword-only parameters, as an object; decodes to a dict of those given.

        An unknown name or a missing one is a decoding error.
        """
        codec = self._codecs.get("kwargs")
        if codec is None:
            codec = self._codecs["kwargs"] = self._kwargs_codec()
        return codec

    def kwargs_without(self, names: Collection[str]) -> Codec:
        """Return the codec of the keyword-only parameters but for some, which come another way.

        Raises TypeError if there is no parameter of such a name.
        """
        key = f"kwargs but {','.join(sorted(names))}"
        codec = self._codecs.get(key)
        if codec is None:
            known = keyword_only(innermost(self.callable))
            for name in names:
                if name not in known:
                    raise TypeError(f"{self.name}() got an unexpected keyword argument {name!r}")
            codec = self._codecs[key] = self._kwargs_codec(names)
        return codec

    @property
    def per_worker(self) -> dict[str, PerWorker]:
        """The parameters that workers pass themselves. Raises TypeError if one is wrong."""
        if self._marks is None:
            try:
                self._marks = marks_of(self.callable, self.scope, self._hints)
            except NameError as exc:
                raise TypeError(f"{self.module}.{self.qualname}: per_worker: {exc}") from exc
        return self._marks

    def pickling(self, *, far: bool = False) -> Function:
        """Return this function with codecs for the format "pickle".

        Args:
            far: Whether the workers are on other hosts, without this process's script.
        """
        found = self._pickling.get(far)
        if found is None:
            from .pickled import PicklingFunction

            found = self._pickling[far] = PicklingFunction(self, far=far)
        return found

    def info(self) -> FunctionInfo:
        """Describe it as workers announce it: name, documentation and JSON schemas."""
        import textwrap

        from jetmap.wire.presence import FunctionInfo

        first, _, rest = self.doc.strip().partition("\n")

        return FunctionInfo(
            name=self.name,
            doc=f"{first}\n{textwrap.dedent(rest)}".strip(),
            item=self.item.schema(),
            value=self.value.schema(),
            kwargs=self.kwargs.schema(),
            timeout=self.timeout,
            attempts=self.attempts,
            retries=self.retry.retries if self.retry is not None else 0,
            module=self.module,
            untyped=self.untyped,
            batch=self.batching.size if self.batching is not None else 0,
            linger=self.batching.linger if self.batching is not None else 0.0,
            max_parallel=self.max_parallel,
        )

    def batch_terms(self) -> BatchTerms | None:
        """Return the terms on which chunks share calls; None: the function takes one item."""
        if self.batching is None:
            return None
        from jetmap.wire.messages import BatchTerms

        return BatchTerms(self.batching.size, self.batching.linger)

    def announced(self) -> FunctionInfo:
        """Describe it as ``info`` does; with a reason if a type of it cannot travel.

        One such function must not cost the others of its file.
        """
        from jetmap.wire.presence import FunctionInfo

        try:
            return self.info()
        except TypeError as exc:
            code = getattr(innermost(self.callable), "__code__", None)
            place = f"{self.file or self.module}:{code.co_firstlineno}" if code else self.module
            return FunctionInfo(
                name=self.name,
                doc=self.doc.strip(),
                timeout=self.timeout,
                attempts=self.attempts,
                module=self.module,
                refusal=f"{place}: {exc}",
            )

    @property
    def untyped(self) -> list[str]:
        """The names among item, value and kwargs of those with a part without an annotation."""
        if self._untyped is None:
            faces = {"item": self.item, "value": self.value, "kwargs": self.kwargs}
            self._untyped = [name for name, codec in faces.items() if codec.is_open]
        return self._untyped

    def known_hints(self) -> dict[str, Any]:
        """Return the types of annotations that are text or name a redefined class.

        Those whose names are still unknown are left out.
        """
        hints = {}
        for parameter, annotation in annotations_of(self.callable).items():
            if (mark := self.per_worker.get(parameter)) is not None:
                hints[parameter] = Annotated[Any, mark]
            elif isinstance(annotation, str) or parameter in self._hints:
                try:
                    hints[parameter] = self._hint(parameter)
                except TypeError:  # It is refused at the parameter's first use.
                    continue
        return hints

    def refresh(self) -> None:
        """Look the annotations' names up again, for classes that were redefined.

        This concerns only functions without a file, as in a notebook.
        """
        if not self.by_value or self.local:
            return
        self._marks = self._renewed_marks()
        for parameter, annotation in annotations_of(self.callable).items():
            try:
                hint = renewed(evaluate(annotation, self.scope, {}), self.scope)
            except Exception:  # The name is gone: its earlier meaning stays.
                continue
            if hint != self._hints.get(parameter, annotation):
                self._hints[parameter] = hint
                self._codecs.clear()
                self._pickling.clear()
                self._untyped = None

    def is_of(self, f: object) -> bool:
        return self._peek() is f

    def hold_weakly(self, forget: Callable[[], None]) -> None:
        """Keep only a weak reference to the function; call ``forget`` when it is collected."""
        if self._strong is None:
            return
        try:
            self._weak = weakref.ref(self._strong, lambda _: forget())
        except TypeError:  # An object without weak references stays for ever.
            return
        self._strong = None

    def find_marks(self, frame: FrameType) -> None:
        """Find the parameters that workers pass themselves, and refuse those that are wrong.

        A loader that is defined later is looked up at the function's first use.
        """
        try:
            self._marks = marks_of(self.callable, self.scope, self._hints)
        except NameError:
            if self.local:
                with contextlib.suppress(NameError):
                    names = frame.f_locals
                    self._marks = marks_of(self.callable, self.scope, self._hints, names)

    def resolve_now(self, frame: FrameType) -> None:
        """Resolve the annotations that need local names of the defining frame."""
        for parameter, annotation in annotations_of(self.callable).items():
            if not isinstance(annotation, str):
                continue
            try:
                evaluate(annotation, self.scope, {})
            except Exception:
                # Reading a frame's locals makes it keep a copy of them, this function included,
                # until it returns; so do it only if necessary.
                try:
                    self._hints[parameter] = evaluate(annotation, self.scope, frame.f_locals)
                except Exception:  # A forward reference is resolved, or refused, at its first use.
                    continue

    def _renewed_marks(self) -> dict[str, PerWorker]:
        """Look the loaders' names up again, in case they were redefined."""
        self._marks = None
        scope = self.scope
        marks = {}
        for parameter, mark in self.per_worker.items():
            load = mark.load
            current = scope.get(getattr(load, "__qualname__", ""))
            if type(current) is type(load) and current.__module__ == load.__module__:
                mark = PerWorker(current, mark.timeout)
            marks[parameter] = mark
        return marks

    def _peek(self) -> Callable[..., Any] | None:
        if self._strong is not None:
            return self._strong
        return self._weak() if self._weak is not None else None

    def _codec(self, face: str, parameter: str, *, output: bool) -> Codec:
        codec = self._codecs.get(face)
        if codec is None:
            hint = self._hint(parameter)
            try:
                if self.batching is not None:
                    hint = self.batching.element(hint, parameter)
                codec = self._codec_for(hint, output=output)
            except TypeError as exc:
                raise self.bad_type(parameter, hint, exc) from exc
            self._codecs[face] = codec
        return codec

    def _kwargs_codec(self, but: Collection[str] = ()) -> Codec:
        from jetmap.codecs import Parameter, codec_for

        inner = innermost(self.callable)
        parameters = []
        for name, default in keyword_only(inner).items():
            if name in self.per_worker or name in but:
                continue
            hint = self._hint(name)
            try:
                codec_for(hint)
            except TypeError as exc:
                wrong = TypeError(f"{exc}. Annotate a parameter for values that are put with Any")
                raise self.bad_type(name, hint, wrong) from exc
            parameters.append(Parameter(name, hint, default is not REQUIRED, default))
        return self._kwargs_codec_for(parameters)

    def _codec_for(self, hint: Any, *, output: bool) -> Codec:
        from jetmap.codecs import codec_for

        return codec_for(hint, output=output)

    def _kwargs_codec_for(self, parameters: Sequence[Parameter]) -> Codec:
        from jetmap.codecs import kwargs_codec

        return kwargs_codec(self.name, parameters)

    def _hint(self, parameter: str) -> Any:
        if parameter not in self._hints:
            annotation = annotations_of(self.callable).get(parameter, Any)
            try:
                self._hints[parameter] = evaluate(annotation, self.scope, {})
            except Exception as exc:
                raise self.bad_type(parameter, annotation, exc) from exc
        return self._hints[parameter]

    def bad_type(self, parameter: str, hint: Any, exc: BaseException) -> TypeError:
        name = hint if isinstance(hint, str) else typing._type_repr(hint)
        place = f"-> {name}" if parameter == "return" else f"{parameter}: {name}"
        reason = str(exc) or type(exc).__name__
        return TypeError(f"{self.module}.{self.qualname} ({place}): {reason}")


def file_stamp(path: str | None) -> tuple[int, int] | None:
    """Return modification time and size, which show later whether a file changed, or None."""
    if path is None:
        return None
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _check_name(name: str, qualname: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{qualname}: name must be a text, not {name!r:.60}")
    if NAME.fullmatch(name):
        return name
    if name == "<lambda>":
        raise ValueError("a lambda has no name; give it one: task(lambda …, name=…)")
    raise ValueError(
        f"{qualname}: {name!r} is not a function name; use letters, digits, '_', '.' and '-', "
        "beginning with a letter or '_'"
    )
