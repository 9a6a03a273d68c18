"""Load settings from options, the environment and the file, and check them all at once.

An option beats a ``JETMAP_…`` variable, which beats the file (``$JETMAP_CONFIG``, else
``./jetmap.toml``, else ``./config/jetmap.toml``), which beats the default. An empty string
means 'not set'. Durations are seconds; sizes are bytes, or strings such as "64MiB".
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import SecretStr, ValidationError, create_model, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from jetmap.errors import ConfigurationError

from .metadata import Setting, setting_of
from .sections import (
    BrokerSettings,
    ChunkSettings,
    GatewaySettings,
    JobSettings,
    LimitSettings,
    LogSettings,
    Section,
    ServerSettings,
    StreamSettings,
    WorkerSettings,
)

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

    def __init__(self, **values: Any) -> None:
        """Take values by their flat names, else the environment's, the file's, the default.

        Raises:
            pydantic.ValidationError: ``load`` raises ConfigurationError for it.
        """
        self._take(_Sourced(**values))

    @classmethod
    def load(cls, **options: Any) -> Settings:
        """Load settings from options, the environment and the file.

        Args:
            options: By flat name, as in ``port=8000``; None: not given.

        Raises:
            ConfigurationError: It lists every problem, and where each value came from.
        """
        given = {name: value for name, value in options.items() if value is not None}
        try:
            return cls(**given)
        except ValidationError as exc:
            problems = [_problem(error, given) for error in exc.errors(include_url=False)]
            raise ConfigurationError(problems) from exc
        except tomllib.TOMLDecodeError as exc:
            raise ConfigurationError([f"{config_file()} is not valid TOML: {exc}"]) from exc

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """Build settings from these values and defaults alone."""
        made = cls.__new__(cls)
        made._take(_Checked.model_validate(dict(values)))
        return made

    def replace(self, **changes: Any) -> Settings:
        """Return a copy with other values, by their flat names. They are not checked."""
        made = type(self).__new__(type(self))
        for name, section in self._sections().items():
            own = {key: changes.pop(key) for key in list(changes) if key in _fields_of(section)}
            object.__setattr__(made, name, section.model_copy(update=own) if own else section)
        if changes:
            raise TypeError(f"unknown settings: {', '.join(changes)}")
        return made

    def at(self, url: str, user: str, password: str) -> Settings:
        """Return settings for the broker at ``url``: TLS as here, other credentials dropped."""
        names = [name for name in BrokerSettings.model_fields if name.startswith("nats_")]
        others = {name: None for name in names if not name.startswith("nats_tls_")}
        mine = {"nats_url": url, "nats_user": user, "nats_password": SecretStr(password)}
        return self.replace(**(others | mine))

    def get(self, name: str) -> Any:
        """Return a value by its flat name."""
        return getattr(getattr(self, FIELDS[name].section), name)

    def was_given(self, name: str) -> bool:
        """Whether a value stands in an option, a variable or the file."""
        section: Section = getattr(self, FIELDS[name].section)
        return name in section.model_fields_set

    def environment(self) -> dict[str, str]:
        """Return the variables that give another process exactly these settings.

        They hold secrets.
        """
        variables = {CONFIG_VARIABLE: os.devnull}
        for name in FIELDS:
            value = self.get(name)
            if isinstance(value, SecretStr):
                value = value.get_secret_value()
            elif isinstance(value, list):
                value = ",".join(value)
            variables[f"{PREFIX}{name.upper()}"] = "" if value is None else str(value)
        return variables

    def for_keeper(self) -> dict[str, Any]:
        """Return the settings that the keeper of an embedded cluster needs, by flat name."""
        return {name: self.get(name) for name, field in FIELDS.items() if field.setting.keeper}

    def _sections(self) -> dict[str, Section]:
        return {name: getattr(self, name) for name in SECTIONS}

    def _take(self, checked: Any) -> None:
        for name, section in SECTIONS.items():
            names = section.model_fields
            values = {key: getattr(checked, key) for key in names}
            given = checked.model_fields_set & names.keys()
            object.__setattr__(self, name, section.model_construct(given, **values))


SECTIONS: dict[str, type[Section]] = get_type_hints(Settings)


@dataclass(frozen=True)
class Field:
    """A setting as it was declared, and the section of ``Settings`` that has it."""

    section: str
    info: FieldInfo

    @property
    def setting(self) -> Setting:
        return setting_of(self.info)


FIELDS = {
    key: Field(name, info)
    for name, section in SECTIONS.items()
    for key, info in section.model_fields.items()
}


class _Rules(Section):
    """All sections are checked together, so that all problems are reported at once."""

    @model_validator(mode="before")
    @classmethod
    def _empty_is_unset(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value != ""}

    @model_validator(mode="after")
    def _agree(self) -> _Rules:
        problems: list[str] = []
        for section in SECTIONS.values():
            problems += section.conflicts(self)
        if problems:
            raise ValueError("; ".join(problems))
        return self


class _TomlFile(TomlConfigSettingsSource):
    """A file that may begin with a byte order mark, as some editors write it."""

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        try:
            return tomllib.loads(file_path.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError as exc:
            raise ConfigurationError([f"{file_path} is not UTF-8: save it as UTF-8"]) from exc


class _Sources(BaseSettings):
    """The sources of values, in order of priority."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        path = config_file()
        if path is None:
            return init_settings, env_settings
        return init_settings, env_settings, _TomlFile(settings_cls, toml_file=path)


# One flat model of all sections, as keys and variables are flat; without sources, and with them.
_Checked: Any = create_model("_Checked", __base__=(_Rules, *reversed(SECTIONS.values())))
_Sourced: Any = create_model("_Sourced", __base__=(_Checked, _Sources))


def _fields_of(section: Section) -> Iterable[str]:
    return type(section).model_fields


def config_file() -> Path | None:
    """Return the file that is read, or None; with $JETMAP_CONFIG=/dev/null none is.

    Raises:
        ConfigurationError: $JETMAP_CONFIG does not name a file.
    """
    if chosen := os.environ.get(CONFIG_VARIABLE):
        if chosen == os.devnull:
            return None
        if not Path(chosen).is_file():
            raise ConfigurationError([f"{CONFIG_VARIABLE} names {chosen}, which is not a file"])
        return Path(chosen)
    return next((Path(name) for name in CONFIG_FILES if Path(name).is_file()), None)


def unknown_variables() -> list[str]:
    """Return a warning for each ``JETMAP_…`` variable that is not a setting."""
    known = {f"{PREFIX}{name.upper()}" for name in FIELDS} | {CONFIG_VARIABLE}
    found = []
    for name in sorted(set(os.environ) - known):
        if name.startswith(PREFIX) and not name.startswith(f"{PREFIX}_"):
            found.append(_unknown(name, name, known))
    return found


def _unknown(shown: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"unknown setting {shown}" + (f": did you mean {near[0]}?" if near else "")


def _problem(error: ErrorDetails, options: dict[str, Any]) -> str:
    """Return one sentence: where the value came from, and what is wrong with it."""
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return message
    name = str(error["loc"][0])
    where = _origin(name, options)
    if error["type"] == "extra_forbidden":
        return _unknown(where, name, FIELDS)
    if error["type"] == "value_error":
        return f"{where} {message}"
    return f"{where}: {message[:1].lower()}{message[1:]}"


def _origin(name: str, options: dict[str, Any]) -> str:
    variable = f"{PREFIX}{name.upper()}"
    if name in options:
        return f"--{name.replace('_', '-')}"
    if os.environ.get(variable):
        return variable
    path = config_file()
    return f"{name} in {path}" if path else name
