"""Load settings from options, the environment and the file, and check them all at once.

An option beats a ``JETMAP_…`` variable, which beats the file (``$JETMAP_CONFIG``, else
``./jetmap.toml``, else ``./config/jetmap.toml``), which beats the default. An empty string
means 'not set'. Durations are seconds; sizes are bytes, or strings such as "64MiB".
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from jetmap.errors import ConfigurationError

from .broker import BrokerSettings, ServerSettings, StreamSettings
from .gateway import GatewaySettings
from .jobs import JobSettings
from .kinds import Read, Secret, is_file, readers_of, size, size_or_zero
from .limits import LimitSettings
from .logs import LogSettings
from .metadata import KEY, Section, Setting
from .workers import ChunkSettings, WorkerSettings

PREFIX = "JETMAP_"
CONFIG_VARIABLE = "JETMAP_CONFIG"
CONFIG_FILES = ("jetmap.toml", "config/jetmap.toml")


@dataclass(frozen=True, init=False)
class Settings:
    """All settings, in sections, frozen. Build it with ``Settings.load``."""

    broker: BrokerSettings
    workers: WorkerSettings
    stream: StreamSettings
    chunks: ChunkSettings
    limits: LimitSettings
    jobs: JobSettings
    gateway: GatewaySettings
    server: ServerSettings
    logs: LogSettings
    given: frozenset[str] = dataclasses.field(compare=False, repr=False)

    def __init__(self, **values: Any) -> None:
        """Take values by their flat names, else the environment's, the file's, the default.

        Raises:
            ConfigurationError: It lists every problem, and where each value came from.
        """
        self._read(_file_values() | _variables() | values, values, str)

    @classmethod
    def load(cls, spelled: Callable[[str], str] = str, /, **options: Any) -> Settings:
        """Load settings from options, the environment and the file.

        Args:
            spelled: Returns what an error calls an option, by its flat name.
            options: By flat name, as in ``port=8000``; None: not given.

        Raises:
            ConfigurationError: It lists every problem, and where each value came from.
        """
        values = {name: value for name, value in options.items() if value is not None}
        made = cls.__new__(cls)
        made._read(_file_values() | _variables() | values, values, spelled)
        return made

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """Build settings from these values and defaults alone."""
        made = cls.__new__(cls)
        made._read(values, {}, str)
        return made

    def replace(self, **changes: Any) -> Settings:
        """Return a copy with other values, by their flat names. They are not checked."""
        if unknown := changes.keys() - FIELDS.keys():
            raise TypeError(f"unknown settings: {', '.join(sorted(unknown))}")
        made = type(self).__new__(type(self))
        for name in SECTIONS:
            section: Section = getattr(self, name)
            own = {key: changes[key] for key in changes if FIELDS[key].section == name}
            object.__setattr__(made, name, section.replace(**own) if own else section)
        object.__setattr__(made, "given", self.given | changes.keys())
        return made

    def at(self, url: str, user: str, password: str) -> Settings:
        """Return settings for the broker at ``url``: TLS as here, other credentials dropped."""
        names = [name for name, field in FIELDS.items() if field.section == "broker"]
        names = [name for name in names if name.startswith("nats_")]
        others = {name: None for name in names if not name.startswith("nats_tls_")}
        mine = {"nats_url": url, "nats_user": user, "nats_password": Secret(password)}
        return self.replace(**(others | mine))

    def get(self, name: str) -> Any:
        """Return a value by its flat name."""
        return getattr(getattr(self, FIELDS[name].section), name)

    def was_given(self, name: str) -> bool:
        """Return whether a value stands in an option, a variable or the file."""
        return name in self.given

    def environment(self) -> dict[str, str]:
        """Return the variables that give another process exactly these settings.

        They hold secrets.
        """
        variables = {CONFIG_VARIABLE: os.devnull}
        for name in FIELDS:
            value = self.get(name)
            if isinstance(value, Secret):
                value = value.reveal()
            elif isinstance(value, list):
                value = ",".join(value)
            variables[f"{PREFIX}{name.upper()}"] = "" if value is None else str(value)
        return variables

    def for_keeper(self) -> dict[str, Any]:
        """Return the settings that the keeper of an embedded cluster needs, by flat name."""
        return {name: self.get(name) for name, field in FIELDS.items() if field.setting.keeper}

    def _read(
        self,
        found: Mapping[str, Any],
        options: Mapping[str, Any],
        spelled: Callable[[str], str],
    ) -> None:
        """Check all values together, so that all problems are reported at once."""
        given = {name: value for name, value in found.items() if value != ""}
        values: dict[str, Any] = {}
        problems = []
        for name, field in FIELDS.items():
            if name in given:
                try:
                    values[name] = field.read(given[name])
                except ValueError as exc:
                    problems.append(f"{_origin(name, options, spelled)} {exc}")
        for name in given:
            if name not in FIELDS:
                problems.append(_unknown(_origin(name, options, spelled), name, FIELDS))
        sections = {
            name: section(**{key: values[key] for key in values if FIELDS[key].section == name})
            for name, section in SECTIONS.items()
        }
        if not problems:
            problems = [text for section in sections.values() for text in section.conflicts()]
        if problems:
            raise ConfigurationError(problems)
        for name, section in sections.items():
            object.__setattr__(self, name, section)
        object.__setattr__(self, "given", frozenset(given))


SECTIONS: dict[str, type[Section]] = {
    name: hint for name, hint in get_type_hints(Settings).items() if name != "given"
}


@dataclass(frozen=True)
class Field:
    """A setting as it was declared, and the section of ``Settings`` that has it."""

    section: str
    setting: Setting
    default: Any
    readers: list[Read]
    optional: bool

    @property
    def is_size(self) -> bool:
        return size in self.readers or size_or_zero in self.readers

    def read(self, value: Any) -> Any:
        """Return the checked value. Raises ValueError with the end of a sentence."""
        if value is None and self.optional:
            return None
        for read in self.readers:
            value = read(value)
        return value


def _fields() -> Iterator[tuple[str, Field]]:
    for name, section in SECTIONS.items():
        hints = get_type_hints(section, include_extras=True)
        for field in dataclasses.fields(section()):  # type: ignore[arg-type]
            default = [] if field.default is dataclasses.MISSING else field.default
            readers, optional = readers_of(hints[field.name])
            yield field.name, Field(name, field.metadata[KEY], default, readers, optional)


FIELDS = dict(_fields())


def _variables() -> dict[str, str]:
    names = {name: f"{PREFIX}{name.upper()}" for name in FIELDS}
    return {key: os.environ[name] for key, name in names.items() if os.environ.get(name)}


def _file_values() -> dict[str, Any]:
    path = config_file()
    if path is None:
        return {}
    import tomllib  # Only where there is a file.

    try:
        # A file may begin with a byte order mark, as some editors write it.
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as exc:
        raise ConfigurationError([f"{path} is not UTF-8: save it as UTF-8"]) from exc
    except tomllib.TOMLDecodeError as exc:
        raise ConfigurationError([f"{path} is not valid TOML: {exc}"]) from exc
    except OSError as exc:
        raise ConfigurationError([f"{path} cannot be read: {exc.strerror}"]) from exc
    tables = [name for name, value in values.items() if isinstance(value, dict | list)]
    if tables := [name for name in tables if name not in FIELDS]:
        raise ConfigurationError(
            [
                f"[{name}] in {path}: settings are not in tables; write them at the top of the "
                "file, as in cores = 4"
                for name in tables
            ]
        )
    return values


def config_file() -> Path | None:
    """Return the file that is read, or None; with $JETMAP_CONFIG=/dev/null none is.

    Raises:
        ConfigurationError: $JETMAP_CONFIG does not name a file.
    """
    if chosen := os.environ.get(CONFIG_VARIABLE):
        if chosen == os.devnull:
            return None
        if not is_file(chosen):
            raise ConfigurationError([f"{CONFIG_VARIABLE} names {chosen}, which is not a file"])
        return Path(chosen)
    return next((Path(name) for name in CONFIG_FILES if is_file(name)), None)


def unknown_variables() -> list[str]:
    """Return a warning for each ``JETMAP_…`` variable that is not a setting."""
    known = {f"{PREFIX}{name.upper()}" for name in FIELDS} | {CONFIG_VARIABLE}
    found = []
    for name in sorted(set(os.environ) - known):
        if name.startswith(PREFIX) and not name.startswith(f"{PREFIX}_"):
            found.append(_unknown(name, name, known))
    return found


def _unknown(shown: str, name: str, known: Iterable[str]) -> str:
    import difflib  # Only after a mistake.

    near = difflib.get_close_matches(name, known, 1)
    return f"unknown setting {shown}" + (f": did you mean {near[0]}?" if near else "")


def _origin(name: str, options: Mapping[str, Any], spelled: Callable[[str], str]) -> str:
    variable = f"{PREFIX}{name.upper()}"
    if name in options:
        return spelled(name)
    if os.environ.get(variable):
        return variable
    path = config_file()
    return f"{name} in {path}" if path else name
