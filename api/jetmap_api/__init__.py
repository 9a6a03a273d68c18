"""jetmap_api: the HTTP gateway, and a cluster in your own FastAPI application."""

from .app import Gateway, create_app
from .dependency import ClusterDep, lifespan, until_disconnect

__all__ = ["ClusterDep", "Gateway", "create_app", "lifespan", "until_disconnect"]
