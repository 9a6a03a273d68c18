"""Scripts that tests run as users would."""

from __future__ import annotations

SCRIPT = """
from __future__ import annotations
import json
from dataclasses import dataclass
from jetmap import Cluster, task

factor = 3

@dataclass
class Pair:
    n: int

@task
def times(pair: Pair, *, plus: int = 0) -> int:
    return pair.n * factor + plus

@task
def is_prime(n: int) -> str:
    return "the caller's own"

if __name__ == "__main__":
    with Cluster().sync as cluster:
        found = [cluster.map(times, [Pair(1), Pair(2)], kwargs={"plus": 1})]
        found.append(cluster.map("is_prime", [7, 8]))
        found.append([f.info.name for f in cluster.functions])
    print(json.dumps(found))
"""
