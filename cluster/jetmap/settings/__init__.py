"""Settings in sections, checked at once.

``sections`` declares each setting with its default and texts, ``kinds`` its types; ``load``
finds the values; ``render`` writes ``config/jetmap.toml`` and the README's table.
"""

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
from .metadata import Section
from .sections import (
    KEEPER_LOG_LEVEL,
    BrokerSettings,
    ChunkSettings,
    GatewaySettings,
    JobSettings,
    LogSettings,
    ServerSettings,
    StreamSettings,
    WorkerSettings,
    is_loopback,
)

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
