"""The options of all commands, generated from the settings' metadata.

Options carry text: ``Settings`` checks them together with variables and the file, so that all
problems are reported at once.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from jetmap.errors import ConfigurationError
from jetmap.logs import Formatter, JsonFormatter, PromptHandler
from jetmap.settings import (
    CONFIG_VARIABLE,
    FIELDS,
    PREFIX,
    SECTIONS,
    BrokerSettings,
    Field,
    GatewaySettings,
    Section,
    ServerSettings,
    Settings,
    StreamSettings,
    WorkerSettings,
)
from jetmap.settings.kinds import is_file
from jetmap.settings.render import size_text

from .exits import exits


@dataclass(frozen=True)
class Option:
    """The option of a setting, named, described and grouped by that setting's metadata."""

    setting: str

    @property
    def field(self) -> Field:
        return FIELDS[self.setting]

    @property
    def name(self) -> str:
        return self.field.setting.flag or f"--{self.setting.replace('_', '-')}"

    @property
    def default(self) -> str:
        """The default as shown in the help; empty if there is none."""
        default = self.field.default
        if default is None or default == []:
            return ""
        if self.field.is_size:
            return size_text(default)
        if isinstance(default, bool):
            return "on" if default else "off"
        return f"{default:g}" if isinstance(default, float) else str(default)

    @property
    def panel(self) -> str:
        """Group of options in the help."""
        return self.field.setting.panel or SECTIONS[self.field.section].panel

    def parameter(self) -> inspect.Parameter:
        default = f"; default {self.default}" if self.default else ""
        setting = self.field.setting
        text = f"{setting.help} ({PREFIX}{self.setting.upper()}{default})"
        if setting.positional:
            annotation: Any = Annotated[
                list[str] | None,
                typer.Argument(metavar=setting.metavar, help=text, show_default=False),
            ]
        else:
            option = typer.Option(
                self.name,
                metavar=setting.metavar,
                help=text,
                show_default=False,
                rich_help_panel=self.panel,
            )
            kind_of = bool if setting.metavar is None else str
            annotation = Annotated[kind_of | None, option]
        kind = inspect.Parameter.KEYWORD_ONLY
        return inspect.Parameter(self.setting, kind, default=None, annotation=annotation)


TABLE = [Option(name) for name, field in FIELDS.items() if field.setting.help]
OPTIONS = {option.setting: option for option in TABLE}


def _options_of(*sections: type[Section]) -> tuple[str, ...]:
    return tuple(
        name
        for section in sections
        for name, field in FIELDS.items()
        if SECTIONS[field.section] is section and name in OPTIONS and not _is_positional(name)
    )


def _is_positional(name: str) -> bool:
    return bool(FIELDS[name].setting.positional)


BROKER = _options_of(BrokerSettings)
WORKER = _options_of(WorkerSettings, StreamSettings)
GATEWAY = _options_of(GatewaySettings)
SERVER = (*_options_of(ServerSettings), "nats_user", "nats_password_file")

CONFIG = inspect.Parameter(
    "config",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        str | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help=f"TOML file with settings. ({CONFIG_VARIABLE}; default ./jetmap.toml, else "
            "./config/jetmap.toml)",
            show_default=False,
            rich_help_panel="More",
        ),
    ],
)


def takes(
    *names: str, serves: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command these options; it receives validated ``Settings`` as its first argument.

    serves: it serves others, who must not wait for the reader of its log.
    """
    unique = list(dict.fromkeys([*names, "log_level", "log_format"]))

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)
        _, *own = signature.parameters.values()

        @functools.wraps(function)
        def command(**values: Any) -> None:
            with exits():
                given = {name: values.pop(name) for name in unique}
                if config := values.pop("config"):
                    if config != os.devnull and not is_file(config):
                        raise ConfigurationError([f"--config names {config}, which is not a file"])
                    os.environ[CONFIG_VARIABLE] = config
                settings = load(given)
                if settings.gateway.debug:
                    os.environ[f"{PREFIX}DEBUG"] = "true"  # For ``exits``, if the command fails.
                log_to_stderr(settings.logs.log_level, settings.logs.log_format, waits=not serves)
                function(settings, **values)

        added = [OPTIONS[name].parameter() for name in unique]
        positional = [p for p in added if _is_positional(p.name)]
        options = [p for p in added if not _is_positional(p.name)]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        command.__dict__["__signature__"] = signature.replace(
            parameters=[*positional, *parameters, *options, CONFIG]
        )
        command.__annotations__ = {}
        return command

    return decorate


def load(given: dict[str, Any]) -> Settings:
    """Validate the settings; problems name options as the user spells them."""
    url = given.get("nats_url") or ""
    if any(map(_has_password, url.split(","))):
        raise ConfigurationError(
            [
                "--nats: everyone on this machine can read a password on the command line: put it "
                "into a file and name that with --nats-password-file, or into JETMAP_NATS_PASSWORD"
            ]
        )
    given = {name: None if value in ("", []) else value for name, value in given.items()}
    return Settings.load(lambda name: Option(name).name, **given)


def _has_password(url: str) -> bool:
    """Return whether an address has a password; what is not an address is refused later."""
    try:
        return bool(urlsplit(url.strip()).password)
    except ValueError:
        return False


def only_one(options: dict[str, bool]) -> None:
    """Refuse options that exclude each other."""
    given = [name for name, is_given in options.items() if is_given]
    if len(given) > 1:
        raise ConfigurationError([f"{' and '.join(given)} exclude each other: give one of them"])


def log_to_stderr(level: str, form: str = "text", *, waits: bool = True) -> None:
    """Log to stderr, one line a record.

    form: "text" or "json". waits: while its reader is slow; else lines may be left out.
    """
    handler: logging.Handler = logging.StreamHandler() if waits else PromptHandler(_stderr())
    line = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    text = Formatter(line, datefmt="%H:%M:%S")
    handler.setFormatter(JsonFormatter() if form == "json" else text)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # jetmap reports the same events itself, or they come with every request.
    for noisy in ("nats", "nats.aio.client", "uvicorn.error", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _stderr() -> int:
    """Return the descriptor of ``sys.stderr``, or 2 where it has none."""
    try:
        return sys.stderr.fileno()
    except OSError:
        return 2
