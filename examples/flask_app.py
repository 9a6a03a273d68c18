"""Flask app with jetmap inside.

    gunicorn examples.flask_app:app --workers 4 --threads 8
    curl --json '[7, 8, 9]' http://127.0.0.1:8000/primes

All processes of the server share one set of workers, with a worker for every core.
"""

from __future__ import annotations

from flask import Flask, request

from examples.primes import is_prime
from jetmap import BadInput, Cluster

app = Flask(__name__)
cluster = Cluster().sync


@app.post("/primes")
def primes() -> list[bool]:
    """Say of each number whether it is a prime, using every core."""
    # The first request of a process starts the cluster: the server may have forked before.
    return cluster.start().map(is_prime, request.get_json())


@app.errorhandler(BadInput)
def refuse(error: BadInput) -> tuple[dict[str, str], int]:
    """Answer a list that does not fit the function."""
    return {"error": str(error)}, 422
