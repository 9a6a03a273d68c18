"""What a gateway or a user of encoded elements opens a map with."""

from __future__ import annotations

from jetmap.dispatch.sources import Feed as Feed
from jetmap.dispatch.sources import RawItems as RawItems
from jetmap.dispatch.sources import Source as Source
