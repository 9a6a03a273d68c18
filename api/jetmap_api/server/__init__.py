"""The gateway's HTTP/1.1 server: uvicorn's, with connections of our own (decision 0010)."""

from .serving import GatewayServer

__all__ = ["GatewayServer"]
