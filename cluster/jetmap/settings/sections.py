"""Every setting but the limits: its type, default and texts, once.

To add a setting, add a field here; ``make settings`` writes the rest. Adjacent settings may share
the comment of the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from jetmap.errors import ConfigurationError
from jetmap.machine import memory

from .kinds import (
    Addresses,
    Attempts,
    Cores,
    Count,
    Domain,
    Grace,
    Lines,
    Login,
    Niceness,
    Pool,
    Port,
    ReadableFile,
    Replicas,
    Retention,
    RootPath,
    Seconds,
    Secret,
    Size,
    Timeout,
    Weight,
    Words,
)
from .metadata import Section, setting


@dataclass(frozen=True)
class BrokerSettings(Section):
    """The broker's address and credentials."""

    title: ClassVar[str] = "The broker"
    panel: ClassVar[str] = "Broker"

    nats_url: Addresses | None = setting(
        None,
        'NATS servers, comma-separated: "nats://a:4222,nats://b:4222"; tls:// requires TLS. '
        "Not set: an embedded cluster on this machine, which needs no other nats_ setting here.",
        help="NATS servers, comma-separated.",
        metavar="URL",
        flag="--nats",
    )
    nats_user: str | None = setting(
        None,
        "The user at the broker.",
        help="User at the broker.",
        metavar="NAME",
    )
    nats_password: Secret | None = setting(None, "That user's password, or a file with it.")
    nats_password_file: ReadableFile | None = setting(
        None, help="File with that user's password.", metavar="FILE", secret=True
    )
    nats_token: Secret | None = setting(
        None, "A token in place of user and password, or a file with it."
    )
    nats_token_file: ReadableFile | None = setting(
        None, help="File with a token, in place of user and password.", metavar="FILE", secret=True
    )
    nats_creds: ReadableFile | None = setting(
        None,
        "A .creds file (JWT and nkey) in place of either.",
        help="NATS credentials file, in place of either.",
        metavar="FILE",
        secret=True,
    )
    nats_nkey_file: ReadableFile | None = setting(
        None,
        "A file with a user's nkey seed (SU…), in place of all of these.",
        help="File with a user's nkey seed, in place of all of these.",
        metavar="FILE",
        secret=True,
    )
    nats_js_domain: Domain | None = setting(
        None,
        "The JetStream domain of the servers that hold the streams, if the address above is a leaf "
        "node's. Not set: the server's own JetStream.",
        help="JetStream domain, if the server is a leaf node.",
        metavar="NAME",
    )
    nats_tls_ca: ReadableFile | None = setting(
        None,
        "PEM files: the authorities to trust, and the certificate and key to present.",
        help="Certificate authorities to trust (PEM).",
        metavar="FILE",
    )
    nats_tls_cert: ReadableFile | None = setting(
        None, help="Certificate to present (PEM).", metavar="FILE"
    )
    nats_tls_key: ReadableFile | None = setting(
        None, help="Key of that certificate (PEM).", metavar="FILE", secret=True
    )
    pool: Pool = setting(
        "default",
        "Hosts with the same pool share its work. Letters, digits, - and _.",
        help="Pool whose hosts share work.",
        metavar="NAME",
    )
    join_up: bool = setting(
        True,
        "Let Cluster() without an address join the `jetmap up` that this user runs in the "
        "same directory. false: it starts workers of its own, as Cluster(share=False) does.",
    )

    def conflicts(self) -> Iterator[str]:
        if bool(self.nats_tls_cert) != bool(self.nats_tls_key):
            yield "nats_tls_cert and nats_tls_key go together: set both or neither"
        if self.nats_password is not None and self.nats_password_file is not None:
            yield _both("nats_password", "nats_password_file")
        if self.nats_token is not None and self.nats_token_file is not None:
            yield _both("nats_token", "nats_token_file")
        if self.nats_creds and self.nats_nkey_file:
            yield _both("nats_creds", "nats_nkey_file")

    def servers(self) -> list[str]:
        """Return the addresses in ``nats_url``; empty for an embedded cluster."""
        return [url.strip() for url in (self.nats_url or "").split(",") if url.strip()]

    def read_nats_password(self) -> str | None:
        """Return the broker's password, from the setting or its file."""
        return _read_secret(self.nats_password, self.nats_password_file)

    def read_nats_token(self) -> str | None:
        """Return the broker's token, from the setting or its file."""
        return _read_secret(self.nats_token, self.nats_token_file)


@dataclass(frozen=True)
class WorkerSettings(Section):
    """An agent and its worker processes."""

    title: ClassVar[str] = "Workers"
    panel: ClassVar[str] = "Workers"

    tasks: Words = setting(
        [],
        "Task files (tasks.py) or modules (myapp.tasks).",
        help="Task files (tasks.py) or modules (myapp.tasks).",
        metavar="TASKS…",
        positional=True,
    )
    cores: Cores | None = setting(
        None,
        'A number of cores ("4") or a list of cores ("0,2-3"). Not set: all that this process may '
        "use, by affinity and cgroup limits.",
        help='Number of cores ("4"), or a list of cores ("0,2-3").',
        metavar="N|LIST",
    )
    start_timeout: Timeout = setting(
        60.0,
        "Seconds until the first worker must be ready; importing the functions counts.",
        help="Time until the first worker must be ready.",
        metavar="SECONDS",
        keeper="starter",
    )
    load_timeout: Timeout = setting(
        300.0,
        "Seconds that each per_worker loader may take before a worker is ready.",
        help="Time that a per_worker loader may take.",
        limit="one `per_worker` loader in a worker that starts: `WorkerStartFailed`",
        metavar="SECONDS",
        keeper="agree",
    )
    warm_spare: bool = setting(
        True,
        "Where loaders take over a second, keep one more worker ready for when another one dies, "
        "if there is memory for it.",
        help="Keep one more worker ready where loading takes long.",
        keeper="agree",
    )
    version: str | None = setting(
        None,
        "A name for this version of the tasks. Not set: derived from the source files.",
        help="Name of this version of the tasks.",
        metavar="NAME",
        keeper="agree",
    )
    grace: Grace = setting(
        10.0,
        "Seconds after SIGTERM in which to finish chunks; the rest is handed back.",
        help="Time to finish after SIGTERM.",
        metavar="SECONDS",
        keeper="agree",
    )
    nice: Niceness = setting(
        0,
        "Niceness of the workers, 0-19.",
        help="Niceness of the workers.",
        metavar="0-19",
        keeper="agree",
    )
    worker_memory: Size | None = setting(
        None,
        "Bytes of data that a worker may hold; beyond, Python raises MemoryError. "
        "Not set: no limit.",
        help="Data that a worker may hold before Python raises MemoryError.",
        metavar="SIZE",
        keeper="agree",
    )
    output_bytes: Size = setting(
        1 << 20,
        "Bytes a second that the functions of each worker may print, four seconds' worth at once. "
        "The rest is dropped, and counted in the output.",
        help="Bytes a second that the functions of a worker may print.",
        metavar="SIZE",
        limit="output of one worker's functions: lines are dropped, and counted in the log",
        unit=" a second",
        keeper="agree",
    )
    recycle_chunks: Count | None = setting(
        None,
        "Replace a worker after this number of chunks, this number of seconds, or when it holds "
        "this number of bytes. It works on until its replacement is ready. Not set: never.",
        help="Replace a worker after N chunks.",
        metavar="N",
        keeper="agree",
    )
    recycle_age: Seconds | None = setting(
        None, help="Replace a worker at this age.", metavar="SECONDS", keeper="agree"
    )
    recycle_memory: Size | None = setting(
        None, help="Replace a worker that holds this much memory.", metavar="SIZE", keeper="agree"
    )
    trust_pickle: bool = setting(
        False,
        "Run functions that no worker offers, sent by Python callers: named by module, or pickled "
        "(from a script or notebook). Anyone who can reach the broker can then run any code here. "
        "Workers of the same tasks should agree: those that trust form an offer of their own. In a "
        "Python caller (also Cluster(trust_pickle=True)): load pickled values and exceptions that "
        "workers send back, from whoever can answer on the broker. Gateways load none.",
        help="Run pickled functions sent by callers. Anyone who can reach the broker can then run "
        "code here.",
    )
    metrics_port: Port | None = setting(
        None,
        "Serve metrics of this host's agent at http://metrics_host:metrics_port/metrics. Port 0: "
        "any free port, which the log names. They name functions, and ask for no token: keep "
        "others away. Not set: not served.",
        help="Port on which the agent serves its own /metrics; 0: any free port.",
        metavar="PORT",
    )
    metrics_host: str = setting(
        "127.0.0.1",
        help="Address on which the agent serves its /metrics.",
        metavar="ADDRESS",
    )
    reload: bool = setting(
        False,
        "Replace the workers when a task file changes. While the new source cannot be imported, "
        "they keep the previous version.",
        help="Replace the workers when a task file changes.",
    )


@dataclass(frozen=True)
class StreamSettings(Section):
    """The work stream as jetmap creates it."""

    title: ClassVar[str] = "The work stream, when jetmap creates it; an existing one is not altered"
    panel: ClassVar[str] = "Workers"

    work_storage: Literal["memory", "file"] = setting(
        "memory",
        '"memory" or "file"; if the broker has no room there, the other one.',
        help="Where to keep the work stream, when created.",
        metavar="memory|file",
        keeper="agree",
    )
    work_replicas: Replicas = setting(
        0,
        "Copies, 1-5. 0: three if the servers can hold them, else one.",
        help="Copies of the work stream, when created; 0: as many as the servers allow, up to 3.",
        metavar="0-5",
        keeper="agree",
    )
    work_max_messages: Count = setting(
        100_000,
        "The most chunks that may wait, and their bytes (fewer if the broker has less room); "
        "beyond, publishing waits.",
        keeper="agree",
    )
    work_max_bytes: Size = setting(1 << 30, keeper="agree")


LEAST_ARENA = 1 << 20  # Bytes of shared memory below which sharing is not worth its cost.


@dataclass(frozen=True)
class ChunkSettings(Section):
    """The size of chunks, and the attempts at items."""

    title: ClassVar[str] = "Chunks"

    chunk_seconds: Seconds = setting(
        0.05, "Seconds that a chunk should compute, and the least when a map tapers off."
    )
    chunk_min_seconds: Seconds = setting(0.002)
    chunk_bytes: Size = setting(
        256 << 10, "Bytes of items in a chunk, and of values in one report of its results."
    )
    report_bytes: Size = setting(256 << 10, keeper="agree")
    arena_bytes: Size = setting(
        64 << 20,
        "Memory that a caller, and each worker of its host and user, may use for large items and "
        "values on their way between them, while there are any. Less than 1MiB: none.",
        keeper="agree",
    )
    attempts: Attempts = setting(2, "Attempts at an item whose worker dies.")
    withdraw_grace: Grace = setting(
        0.5,
        "Seconds that a worker has to return from an item that nobody wants any more.",
        keeper="agree",
    )

    def arena(self, *, processes: int = 1) -> int:
        """Return ``arena_bytes``, but at most a sixteenth of the memory for all processes; 0 if
        that is too little to be of use.
        """
        size = min(self.arena_bytes, memory() // 16 // max(1, processes))
        return size if size >= LEAST_ARENA else 0

    def conflicts(self) -> Iterator[str]:
        if self.chunk_min_seconds > self.chunk_seconds:
            yield "chunk_min_seconds is larger than chunk_seconds"


@dataclass(frozen=True)
class JobSettings(Section):
    """The storage of jobs, and their share of the cores."""

    title: ClassVar[str] = "Jobs"

    job_ttl: Retention = setting(
        86_400.0,
        "Seconds to keep a job and its outcomes after its end: 1 to 3,153,600,000 (a hundred "
        "years).",
    )
    job_store_bytes: Size = setting(
        8 << 30,
        "Bytes that the inputs and outcomes of all jobs may take in the store; more is refused "
        "(507).",
    )
    job_replicas: Replicas = setting(
        0,
        "Copies of the jobs' streams when jetmap creates them, 1-5. 0: three if the servers can "
        "hold them, else one.",
    )
    job_weight: Weight = setting(
        0.25, "A job's share of the cores beside a map's: 0.25 is a quarter of what a map gets."
    )
    max_running_jobs: Count = setting(64, "Jobs that one process runs at once; others wait.")


@dataclass(frozen=True)
class GatewaySettings(Section):
    """The gateway's address, and the requests that it accepts."""

    title: ClassVar[str] = "The gateway"
    panel: ClassVar[str] = "Gateway"

    host: str = setting(
        "127.0.0.1",
        "The address on which it listens. Port 0: any free port. Beyond loopback it requires a "
        "token.",
        help="Address on which the gateway listens.",
        metavar="ADDRESS",
    )
    port: Port = setting(8000, help="Port of the gateway; 0: any free port.", metavar="PORT")
    token: Secret | None = setting(
        None, "The bearer token that requests must carry, or a file with it."
    )
    token_file: ReadableFile | None = setting(
        None,
        help="File with the bearer token that requests must carry.",
        metavar="FILE",
        secret=True,
    )
    allowed_hosts: Words = setting(
        [],
        'Host headers to accept besides loopback\'s: ["jetmap.example.org"]. If this is empty and '
        "host is not loopback, any is accepted: then the token protects.",
        help="Host headers to accept, comma-separated.",
        metavar="NAMES",
        flag="--allowed-host",
    )
    cors_origins: Words = setting(
        [],
        'Origins whose pages may call it from a browser: ["https://app.example.org"].',
        help="Origins whose pages may call it, comma-separated.",
        metavar="ORIGINS",
        flag="--cors-origin",
    )
    root_path: RootPath = setting(
        "",
        'The prefix under which a proxy serves it: "/jetmap". A proxy may send it as '
        "X-Forwarded-Prefix instead. All addresses in answers then start with it, whether or not "
        "the proxy strips it.",
        help="Path prefix under which a proxy serves it.",
        metavar="PREFIX",
    )
    session_ttl: Login = setting(
        43_200.0, "Seconds that a login in a browser lasts, 60 to 31,536,000."
    )
    debug: bool = setting(
        False, "Put tracebacks into errors.", help="Put tracebacks into errors.", panel="More"
    )
    scale_seconds: Seconds = setting(
        30.0,
        "Seconds in which all that waits should be done: by it `GET /scale` says how many cores "
        "are wanted.",
    )
    access_log: Lines = setting(
        20,
        "Lines a second in the log for requests (level info), one each: method, path, status, "
        "reason and duration, never the query or headers. Further requests are only counted. "
        "0: none.",
    )

    def conflicts(self) -> Iterator[str]:
        if self.token is not None and self.token_file is not None:
            yield _both("token", "token_file")

    @property
    def listens_beyond_loopback(self) -> bool:
        """Return whether other hosts can reach the gateway's address."""
        return not is_loopback(self.host)

    def read_token(self) -> str | None:
        """Return the gateway's bearer token, from the setting or its file."""
        return _read_secret(self.token, self.token_file)


@dataclass(frozen=True)
class ServerSettings(Section):
    """The NATS server that ``jetmap up`` starts."""

    title: ClassVar[str] = "The NATS server that `jetmap up` starts"
    panel: ClassVar[str] = "NATS server"

    nats_host: str = setting(
        "127.0.0.1",
        "The address on which it listens: with 0.0.0.0, other hosts can join. Port 0: any free "
        "port.",
        help="Address on which the NATS server listens; 0.0.0.0: for other hosts, too.",
        metavar="ADDRESS",
    )
    nats_port: Port = setting(
        4222, help="Port of the NATS server; 0: any free port.", metavar="PORT"
    )
    store: str | None = setting(
        None,
        "A directory for its streams, in which jobs outlive it. Not set: one for each working "
        "directory and pool, below $XDG_STATE_HOME/jetmap or ~/.local/state/jetmap. "
        '"none": a temporary one that is removed at the end; then there are no jobs.',
        help="Directory in which jobs outlive it; none: no jobs.",
        metavar="DIRECTORY|none",
    )


# The level of a keeper's own log unless log_level is given: its users read results, not a log.
KEEPER_LOG_LEVEL = "warning"


@dataclass(frozen=True)
class LogSettings(Section):
    """The log."""

    title: ClassVar[str] = "Logs"

    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info",
        '"debug", "info", "warning" or "error". An embedded cluster, which may have many users, '
        "logs warnings and errors unless the user who starts it sets this.",
        help="debug, info, warning or error.",
        metavar="LEVEL",
        keeper="starter",
    )
    log_format: Literal["text", "json"] = setting(
        "text",
        '"text", or "json": each line is an object with time, level, logger and message, and map, '
        "item and trace where it belongs to an item. What functions print is wrapped, too.",
        help="text or json.",
        metavar="FORMAT",
        keeper="starter",
    )


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a listener on ``host``."""
    if host == "localhost":
        return True
    import ipaddress  # For those who ask, as it is slow to import.

    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _both(name: str, other: str) -> str:
    return f"{name} and {other} are both set: keep one of them"


def _read_secret(value: Secret | None, path: str | None) -> str | None:
    if value is not None:
        return value.reveal()
    if path is None:
        return None
    try:
        text = Path(path).read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError([f"cannot read a secret from {path}: {exc}"]) from exc
    if not text:
        raise ConfigurationError([f"{path} is empty: write the secret into it"])
    return text
