"""Every setting of jetmap, checked at once; ``config/jetmap.toml`` holds the same with defaults.

An option beats a ``JETMAP_…`` variable, which beats the file (``$JETMAP_CONFIG``, else
``./jetmap.toml``, else ``./config/jetmap.toml``), which beats the default. An empty string
means 'not set'. Durations are seconds; sizes are bytes, or strings such as "64MiB".
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ByteSize,
    SecretStr,
    ValidationError,
    ValidationInfo,
    WrapValidator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from . import bounds
from .errors import ConfigurationError

PREFIX = "JETMAP_"
CONFIG_VARIABLE = "JETMAP_CONFIG"
CONFIG_FILES = ("jetmap.toml", "config/jetmap.toml")

CORES = re.compile(r"\d+|\d+(-\d+)?(,\d+(-\d+)?)*", re.ASCII)
ROOT_PATH = re.compile(r"(?=.{1,200}\Z)(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
POOL = re.compile(r"[A-Za-z0-9_-]{1,64}")


def _split(value: object) -> object:
    """A list from "a, b"; lists stay as they are."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return list(value) if isinstance(value, tuple) else value


def _text(value: object) -> object:
    """``cores = 4`` in the file means "4"."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(min(value, 1 << 64))  # A larger one is refused as this is.
    return value if isinstance(value, str) else bounds.shown(value)


def _cores(value: str) -> str:
    if not CORES.fullmatch(value) or (
        value.isdigit() and bounds.WORKERS.parse(value.lstrip("0") or "0") is None
    ):
        raise ValueError(
            f'is a number of cores up to {bounds.WORKERS.most:,} ("4") or a list of them ("0,2-3")'
        )
    return value


def _pool(value: str) -> str:
    if not POOL.fullmatch(value):
        raise ValueError("takes up to 64 letters, digits, - and _")
    return value


def _root_path(value: str) -> str:
    value = value.rstrip("/")
    if value and not ROOT_PATH.fullmatch(value):
        raise ValueError('is a path such as "/jetmap", of letters, digits, "-", ".", "_" and "~"')
    return value


def _domain(value: str) -> str:
    if not re.fullmatch(r"[^\s.*>]{1,255}", value) or value == "API":
        raise ValueError("is the name of a JetStream domain: one word without dots")
    return value


def without_password(url: str) -> str:
    """An address as it may be shown."""
    return re.sub(r"//[^/@]*@", "//…@", url) if "//" in url else re.sub(r"^[^@]*@", "…@", url)


def _urls(value: str) -> str:
    for url in value.split(","):
        if not re.match(r"(nats|tls)://[^/\s]+", url.strip()):
            raise ValueError(
                "is a comma-separated list of nats:// or tls:// addresses, as in "
                f"nats://broker:4222, and not {without_password(url.strip())!r}"
            )
    return value


def _file(value: str) -> str:
    path = Path(value)
    if not path.is_file():
        raise ValueError(f"names {value}, which is not a file")
    if not os.access(path, os.R_OK):
        raise ValueError(f"names {value}, which this user may not read")
    return value


def _size(value: Any, handler: Any, info: ValidationInfo) -> int:
    if isinstance(value, bool):
        raise _out_of_bounds(bounds.SIZE, value)
    try:
        size = int(handler(value))
    except OverflowError:
        raise _out_of_bounds(bounds.SIZE, value) from None
    if not bounds.SIZE.least <= size <= bounds.SIZE.most:
        raise _out_of_bounds(bounds.SIZE, value)
    return size


def _within(bound: bounds.Bound) -> BeforeValidator:
    """A number within its bound; variables give it as text."""

    def check(value: object) -> float:
        if isinstance(value, str):
            found = bound.parse(value.strip().replace("_", ""))
            if found is None:
                raise _out_of_bounds(bound, value)
            return found
        try:
            return bound.check("", value)
        except (TypeError, ValueError):
            raise _out_of_bounds(bound, value) from None

    return BeforeValidator(check)


def _within_size(bound: bounds.Bound) -> AfterValidator:
    """A size within a bound of its own."""

    def check(value: int) -> int:
        if not bound.least <= value <= bound.most:
            raise _out_of_bounds(bound, value)
        return value

    return AfterValidator(check)


def _out_of_bounds(bound: bounds.Bound, value: object) -> PydanticCustomError:
    text = f"must be {bound}, not {bounds.shown(value)}"
    return PydanticCustomError("out_of_bounds", text.replace("{", "{{").replace("}", "}}"))


Words = Annotated[list[str], NoDecode, BeforeValidator(_split)]
Timeout = Annotated[float, _within(bounds.TIMEOUT)]
Seconds = Annotated[float, _within(bounds.DURATION)]
Grace = Annotated[float, _within(bounds.GRACE)]
Weight = Annotated[float, _within(bounds.WEIGHT)]
Count = Annotated[int, _within(bounds.COUNT)]
Replicas = Annotated[int, _within(bounds.REPLICAS)]
Size = Annotated[ByteSize, WrapValidator(_size)]
Cores = Annotated[str, BeforeValidator(_text), AfterValidator(_cores)]
Port = Annotated[int, _within(bounds.PORT)]
Patience = Annotated[float, _within(bounds.CONNECTION)]
ReadableFile = Annotated[str, AfterValidator(_file)]


class _TomlFile(TomlConfigSettingsSource):
    """A file that may begin with a byte order mark, as some editors write it."""

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        try:
            return tomllib.loads(file_path.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError as exc:
            raise ConfigurationError([f"{file_path} is not UTF-8: save it so"]) from exc


class Settings(BaseSettings):
    """All settings, frozen. Build it with ``Settings.load``."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    # The broker.
    nats_url: Annotated[str, AfterValidator(_urls)] | None = None
    nats_user: str | None = None
    nats_password: SecretStr | None = None
    nats_password_file: ReadableFile | None = None
    nats_token: SecretStr | None = None
    nats_token_file: ReadableFile | None = None
    nats_creds: ReadableFile | None = None
    nats_nkey_file: ReadableFile | None = None
    nats_js_domain: Annotated[str, AfterValidator(_domain)] | None = None
    nats_tls_ca: ReadableFile | None = None
    nats_tls_cert: ReadableFile | None = None
    nats_tls_key: ReadableFile | None = None
    pool: Annotated[str, AfterValidator(_pool)] = "default"
    join_up: bool = True

    # Workers.
    tasks: Words = []
    cores: Cores | None = None
    start_timeout: Timeout = 60.0
    version: str | None = None
    grace: Grace = 10.0
    nice: Annotated[int, _within(bounds.NICE)] = 0
    worker_memory: Size | None = None
    output_bytes: Size = 1 << 20  # type: ignore[assignment]
    recycle_chunks: Count | None = None
    recycle_age: Seconds | None = None
    recycle_memory: Size | None = None
    trust_pickle: bool = False
    reload: bool = False

    # The work stream, when jetmap creates it.
    work_storage: Literal["memory", "file"] = "memory"
    work_replicas: Replicas = 0
    work_max_messages: Count = 100_000
    work_max_bytes: Size = 1 << 30  # type: ignore[assignment]  # an int is a size

    # Chunks.
    chunk_seconds: Seconds = 0.05
    chunk_min_seconds: Seconds = 0.002
    chunk_bytes: Size = 256 << 10  # type: ignore[assignment]
    report_bytes: Size = 256 << 10  # type: ignore[assignment]
    attempts: Annotated[int, _within(bounds.ATTEMPTS)] = 2
    withdraw_grace: Grace = 0.5

    # Limits.
    max_open_maps: Count = 1_000
    max_items: Count = 50_000_000
    max_memory_bytes: Size | None = None
    max_list: Count = 10_000_000
    max_item_bytes: Size = 900_000  # type: ignore[assignment]
    max_body_bytes: Size = 1 << 30  # type: ignore[assignment]
    max_buffer_bytes: Size = 16 << 20  # type: ignore[assignment]
    max_spool_bytes: Size = 4 << 30  # type: ignore[assignment]
    max_total_spool_bytes: Size = 32 << 30  # type: ignore[assignment]
    max_depth: Annotated[int, _within(bounds.DEPTH)] = 500

    # Jobs.
    job_ttl: Annotated[float, _within(bounds.TTL)] = 86_400.0
    job_store_bytes: Size = 8 << 30  # type: ignore[assignment]
    job_replicas: Replicas = 0
    job_weight: Weight = 0.25
    max_running_jobs: Count = 64
    job_upload_idle: Seconds = 60.0

    # The gateway.
    host: str = "127.0.0.1"
    port: Port = 8000
    token: SecretStr | None = None
    token_file: ReadableFile | None = None
    allowed_hosts: Words = []
    cors_origins: Words = []
    root_path: Annotated[str, AfterValidator(_root_path)] = ""
    session_ttl: Annotated[float, _within(bounds.SESSION)] = 43_200.0
    debug: bool = False
    max_connections: Count | None = None
    max_header_bytes: Annotated[Size, _within_size(bounds.HEAD)] = 64 << 10  # type: ignore[assignment]
    header_timeout: Patience = 20.0
    body_idle_timeout: Patience = 60.0
    min_body_rate: Annotated[int, _within(bounds.RATE)] = 128
    send_timeout: Patience = 300.0
    keep_alive: Patience = 75.0
    access_log: Annotated[int, _within(bounds.LINES)] = 20

    # The NATS server that `jetmap up` starts.
    nats_host: str = "127.0.0.1"
    nats_port: Port = 4222
    store: str | None = None

    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @classmethod
    def load(cls, **options: Any) -> Settings:
        """Settings from options (None: not given), the environment and the file.

        Raises ConfigurationError, which lists every problem and where each value came from.
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

    @model_validator(mode="before")
    @classmethod
    def _empty_is_unset(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value != ""}

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        problems = []
        if self.chunk_min_seconds > self.chunk_seconds:
            problems.append("chunk_min_seconds is larger than chunk_seconds")
        if bool(self.nats_tls_cert) != bool(self.nats_tls_key):
            problems.append("nats_tls_cert and nats_tls_key go together: set both or neither")
        for name in ("nats_password", "nats_token", "token"):
            if getattr(self, name) is not None and getattr(self, f"{name}_file") is not None:
                problems.append(f"{name} and {name}_file are both set: keep one of them")
        if self.nats_creds and self.nats_nkey_file:
            problems.append("nats_creds and nats_nkey_file are both set: keep one of them")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def servers(self) -> list[str]:
        """The addresses in ``nats_url``; none: an embedded cluster."""
        return [url.strip() for url in (self.nats_url or "").split(",") if url.strip()]

    def memory_budget(self) -> int:
        """``max_memory_bytes``; not set: a quarter of what this machine, or its cgroup, has."""
        from .machine import memory

        return int(self.max_memory_bytes or memory() // 4)

    @property
    def listens_beyond_loopback(self) -> bool:
        """Whether the gateway's address can be reached from other hosts."""
        return not is_loopback(self.host)

    def environment(self) -> dict[str, str]:
        """The variables that give another process exactly these settings. Holds secrets."""
        variables = {CONFIG_VARIABLE: os.devnull}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, SecretStr):
                value = value.get_secret_value()
            elif isinstance(value, list):
                value = ",".join(value)
            variables[f"{PREFIX}{name.upper()}"] = "" if value is None else str(value)
        return variables

    def read_nats_password(self) -> str | None:
        """The broker's password, from the variable or its file."""
        return _secret(self.nats_password, self.nats_password_file)

    def read_nats_token(self) -> str | None:
        """The broker's token, from the variable or its file."""
        return _secret(self.nats_token, self.nats_token_file)

    def read_token(self) -> str | None:
        """The gateway's bearer token, from the variable or its file."""
        return _secret(self.token, self.token_file)


def config_file() -> Path | None:
    """The file that is read, or None; $JETMAP_CONFIG=/dev/null: none is.

    Raises ConfigurationError if $JETMAP_CONFIG names no file.
    """
    if chosen := os.environ.get(CONFIG_VARIABLE):
        if chosen == os.devnull:
            return None
        if not Path(chosen).is_file():
            raise ConfigurationError([f"{CONFIG_VARIABLE} names {chosen}, which is not a file"])
        return Path(chosen)
    return next((Path(name) for name in CONFIG_FILES if Path(name).is_file()), None)


def unknown_variables() -> list[str]:
    """``JETMAP_…`` variables that name no setting, with the nearest that does."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | {CONFIG_VARIABLE}
    found = []
    for name in sorted(set(os.environ) - known):
        if name.startswith(PREFIX) and not name.startswith(f"{PREFIX}_"):
            near = difflib.get_close_matches(name, known, 1)
            found.append(f"{name} is no setting" + (f": did you mean {near[0]}?" if near else ""))
    return found


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address that listens on ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _secret(value: SecretStr | None, path: str | None) -> str | None:
    if value is not None:
        return value.get_secret_value()
    if path is None:
        return None
    try:
        text = Path(path).read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError([f"{path} cannot be read as a secret: {exc}"]) from exc
    if not text:
        raise ConfigurationError([f"{path} is empty: write the secret into it"])
    return text


def _problem(error: ErrorDetails, options: dict[str, Any]) -> str:
    """One sentence: where the value came from, and what is wrong with it."""
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return message
    name = str(error["loc"][0])
    where = _origin(name, options)
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, Settings.model_fields, 1)
        return f"{where} is no setting" + (f": did you mean {near[0]}?" if near else "")
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
