"""Settings in sections, checked at once.

``broker``, ``workers``, ``limits``, ``jobs``, ``gateway`` and ``logs`` declare each setting with
its default and texts, ``kinds`` their types; ``load`` finds the values; ``render`` writes
``config/jetmap.toml`` and the README's table.
"""

from .broker import BrokerSettings, ServerSettings, StreamSettings
from .gateway import GatewaySettings, is_loopback
from .jobs import JobSettings
from .kinds import ROOT_PATH, Secret, without_password
from .limits import LimitSettings
from .load import (
    CONFIG_VARIABLE,
    FIELDS,
    PREFIX,
    SECTIONS,
    Field,
    Settings,
    config_file,
    unknown_variables,
)
from .logs import KEEPER_LOG_LEVEL, LogSettings
from .metadata import Section
from .workers import ChunkSettings, WorkerSettings

__all__ = [
    "CONFIG_VARIABLE",
    "FIELDS",
    "KEEPER_LOG_LEVEL",
    "PREFIX",
    "ROOT_PATH",
    "SECTIONS",
    "BrokerSettings",
    "ChunkSettings",
    "Field",
    "GatewaySettings",
    "JobSettings",
    "LimitSettings",
    "LogSettings",
    "Secret",
    "Section",
    "ServerSettings",
    "Settings",
    "StreamSettings",
    "WorkerSettings",
    "config_file",
    "is_loopback",
    "unknown_variables",
    "without_password",
]
