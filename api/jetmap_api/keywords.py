"""``?kwargs=`` against what the function's workers announce: refused before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from jetmap.functions.kwargs import misfit

from .problems import bad_parameter

if TYPE_CHECKING:
    from jetmap.client.cluster import Cluster

_NONE: dict[str, object] = {}


def check_kwargs(cluster: Cluster, function: str, kwargs: bytes) -> bool:
    """kwargs: a JSON object, or nothing. False: no worker has told of the function yet.

    Raises Problem: 400, naming the parameter and what is accepted.
    """
    info = cluster.info(function)
    if info is None:
        return False
    found = misfit(info, msgspec.json.decode(kwargs) if kwargs else _NONE)
    if found is not None:
        raise bad_parameter("kwargs", found.message, keyword=found.parameter)
    return True
