"""The settings of the broker: its address, its server, and the stream that jetmap creates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from .kinds import (
    Addresses,
    Count,
    Domain,
    Pool,
    Port,
    ReadableFile,
    Replicas,
    Secret,
    Shards,
    Size,
    read_secret,
)
from .metadata import Section, both, setting


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
            yield both("nats_password", "nats_password_file")
        if self.nats_token is not None and self.nats_token_file is not None:
            yield both("nats_token", "nats_token_file")
        if self.nats_creds and self.nats_nkey_file:
            yield both("nats_creds", "nats_nkey_file")

    def servers(self) -> list[str]:
        """Return the addresses in ``nats_url``; empty for an embedded cluster."""
        return [url.strip() for url in (self.nats_url or "").split(",") if url.strip()]

    def read_nats_password(self) -> str | None:
        """Return the broker's password, from the setting or its file."""
        return read_secret(self.nats_password, self.nats_password_file)

    def read_nats_token(self) -> str | None:
        """Return the broker's token, from the setting or its file."""
        return read_secret(self.nats_token, self.nats_token_file)


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
    work_shards: Shards = setting(
        0,
        "Streams that share the chunks of the pool, on different servers of a cluster. The worker "
        "that was started last with a number sets it for all. 0: as many as there are, at first 1.",
        help="Streams that share the pool's chunks, on different servers; 0: as many as there are.",
        metavar="0-32",
        keeper="agree",
    )
    work_max_messages: Count = setting(
        100_000,
        "The most chunks that may wait, and their bytes (fewer if the broker has less room); "
        "beyond, publishing waits.",
        keeper="agree",
    )
    work_max_bytes: Size = setting(1 << 30, keeper="agree")


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
