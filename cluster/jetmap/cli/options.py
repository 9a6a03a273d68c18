"""The options of all commands: one table, from which each command picks.

An option only carries text: ``Settings`` checks it together with variables and file, so that
all problems are reported at once.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from pydantic import ByteSize

from jetmap.errors import ConfigurationError
from jetmap.logs import Formatter
from jetmap.settings import CONFIG_VARIABLE, PREFIX, Settings

from .exits import exits


@dataclass(frozen=True)
class Option:
    """An option that is a setting. metavar None: a switch; flag: its name, if another one."""

    setting: str
    metavar: str | None
    help: str
    flag: str = ""

    @property
    def name(self) -> str:
        return self.flag or f"--{self.setting.replace('_', '-')}"

    @property
    def default(self) -> str:
        """As help shows it; empty: there is none, or what happens then is in the help text."""
        default = Settings.model_fields[self.setting].get_default()
        if default is None or default == []:
            return ""
        if self.metavar == "SIZE":
            return ByteSize(default).human_readable()
        if isinstance(default, bool):
            return "on" if default else "off"
        return f"{default:g}" if isinstance(default, float) else str(default)

    @property
    def panel(self) -> str:
        """The group of options under which help lists it."""
        return next((name for name, settings in PANELS if self.setting in settings), "More")

    def parameter(self) -> inspect.Parameter:
        default = f"; default {self.default}" if self.default else ""
        text = f"{self.help} ({PREFIX}{self.setting.upper()}{default})"
        if self.setting == "tasks":
            annotation: Any = Annotated[
                list[str] | None, typer.Argument(metavar="TASKS…", help=text, show_default=False)
            ]
        else:
            option = typer.Option(
                self.name,
                metavar=self.metavar,
                help=text,
                show_default=False,
                rich_help_panel=self.panel,
            )
            kind_of = bool if self.metavar is None else str
            annotation = Annotated[kind_of | None, option]
        kind = inspect.Parameter.KEYWORD_ONLY
        return inspect.Parameter(self.setting, kind, default=None, annotation=annotation)


TABLE = [
    Option("tasks", "TASKS…", "Task files (tasks.py) or modules (myapp.tasks)."),
    Option("nats_url", "URL", "NATS servers, comma-separated.", "--nats"),
    Option("nats_user", "NAME", "User at the broker."),
    Option("nats_password_file", "FILE", "Holds that user's password."),
    Option("nats_token_file", "FILE", "Holds a token, instead of user and password."),
    Option("nats_creds", "FILE", "NATS credentials, instead of either."),
    Option("nats_nkey_file", "FILE", "Holds a user's nkey seed, instead of all these."),
    Option("nats_js_domain", "NAME", "JetStream domain, for a server that is a leaf node."),
    Option("nats_tls_ca", "FILE", "Whom to trust (PEM)."),
    Option("nats_tls_cert", "FILE", "Certificate to show (PEM)."),
    Option("nats_tls_key", "FILE", "Its key (PEM)."),
    Option("pool", "NAME", "The pool whose hosts share work."),
    Option("cores", "N|LIST", 'How many cores, or which: "4", "0,2-3".'),
    Option("start_timeout", "SECONDS", "Until the first worker must be ready."),
    Option("version", "NAME", "Names this version of the tasks."),
    Option("grace", "SECONDS", "To finish in after SIGTERM."),
    Option("nice", "0-19", "Niceness of the workers."),
    Option("worker_memory", "SIZE", "Data a worker may hold; then MemoryError."),
    Option("output_bytes", "SIZE", "What a worker's functions may print a second."),
    Option("recycle_chunks", "N", "Replace a worker after so many chunks."),
    Option("recycle_age", "SECONDS", "Replace a worker after so long."),
    Option("recycle_memory", "SIZE", "Replace a worker that holds so much."),
    Option("trust_pickle", None, "Run what callers bring, also pickled: any code of theirs."),
    Option("reload", None, "Replace the workers when a task file changes."),
    Option("work_storage", "memory|file", "Where the work stream lives, if made."),
    Option("work_replicas", "0-5", "Copies of the work stream, if made; 0: by the servers."),
    Option("host", "ADDRESS", "Where the gateway listens."),
    Option("port", "PORT", "Its port; 0: any that is free."),
    Option("token_file", "FILE", "Holds the bearer token that requests must show."),
    Option("allowed_hosts", "NAMES", "Host headers to accept, comma-separated.", "--allowed-host"),
    Option("cors_origins", "ORIGINS", "Whose pages may call it, comma-separated.", "--cors-origin"),
    Option("root_path", "PREFIX", "The path prefix under which a proxy serves it."),
    Option("debug", None, "Put tracebacks into errors."),
    Option("nats_host", "ADDRESS", "Where the NATS server listens; 0.0.0.0: for other hosts."),
    Option("nats_port", "PORT", "Its port; 0: any that is free."),
    Option("store", "DIRECTORY|none", "Where jobs outlive it; none: no jobs."),
    Option("log_level", "LEVEL", "debug, info, warning or error."),
]
OPTIONS = {option.setting: option for option in TABLE}

BROKER = (
    *("nats_url", "nats_user", "nats_password_file", "nats_token_file", "nats_creds"),
    *("nats_nkey_file", "nats_js_domain", "nats_tls_ca", "nats_tls_cert", "nats_tls_key", "pool"),
)
WORKER = (
    *("cores", "start_timeout", "version", "grace", "nice", "worker_memory", "output_bytes"),
    *(
        "recycle_chunks",
        "recycle_age",
        "recycle_memory",
        "trust_pickle",
        "reload",
        "work_storage",
        "work_replicas",
    ),
)
GATEWAY = ("host", "port", "token_file", "allowed_hosts", "cors_origins", "root_path", "debug")
SERVER = ("nats_host", "nats_port", "nats_user", "nats_password_file", "store")

PANELS = (
    ("NATS server", ("nats_host", "nats_port", "store")),
    ("Broker", BROKER),
    ("Workers", WORKER),
    ("Gateway", tuple(name for name in GATEWAY if name != "debug")),
)

CONFIG = inspect.Parameter(
    "config",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        str | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help=f"Settings to read, TOML. ({CONFIG_VARIABLE}; default ./jetmap.toml, else "
            "./config/jetmap.toml)",
            show_default=False,
            rich_help_panel="More",
        ),
    ],
)


def takes(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command these options; it gets a checked ``Settings`` as its first argument."""
    unique = list(dict.fromkeys([*names, "log_level"]))

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)
        _, *own = signature.parameters.values()

        @functools.wraps(function)
        def command(**values: Any) -> None:
            with exits():
                given = {name: values.pop(name) for name in unique}
                if config := values.pop("config"):
                    os.environ[CONFIG_VARIABLE] = config
                settings = load(given)
                if settings.debug:
                    os.environ[f"{PREFIX}DEBUG"] = "true"  # For ``exits``, in case we fail.
                log_to_stderr(settings.log_level)
                function(settings, **values)

        added = [OPTIONS[name].parameter() for name in unique]
        positional = [p for p in added if p.name == "tasks"]
        options = [p for p in added if p.name != "tasks"]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        command.__dict__["__signature__"] = signature.replace(
            parameters=[*positional, *parameters, *options, CONFIG]
        )
        command.__annotations__ = {}
        return command

    return decorate


def load(given: dict[str, Any]) -> Settings:
    """Checked settings; their problems name options as they are spelt."""
    url = given.get("nats_url") or ""
    if any(urlsplit(part.strip()).password for part in url.split(",")):
        raise ConfigurationError(
            [
                "--nats: a password on the command line can be read by everyone on this machine: "
                "put it into a file and name it with --nats-password-file, or into "
                "JETMAP_NATS_PASSWORD"
            ]
        )
    given = {name: None if value in ("", []) else value for name, value in given.items()}
    try:
        return Settings.load(**given)
    except ConfigurationError as exc:
        raise ConfigurationError([_spelt(problem) for problem in exc.problems]) from exc


def log_to_stderr(level: str) -> None:
    """Logs of this process, one line each."""
    handler = logging.StreamHandler()
    line = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    handler.setFormatter(Formatter(line, datefmt="%H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # Their own reports of what jetmap reports in its words, or of every request.
    for noisy in ("nats", "nats.aio.client", "uvicorn.error", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _spelt(problem: str) -> str:
    for option in TABLE:
        if option.flag:
            problem = re.sub(rf"--{option.setting.replace('_', '-')}\b", option.flag, problem)
    return problem
