"""Django app with jetmap inside, in one file.

    gunicorn examples.django_app:app --workers 4 --threads 8
    curl --json '[7, 8, 9]' http://127.0.0.1:8000/primes

All processes of the server share one set of workers, with a worker for every core. An async view
uses ``async with Cluster()`` in the lifespan of the ASGI server instead.
"""

from __future__ import annotations

import json

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.http import require_POST

from examples.primes import is_prime
from jetmap import BadInput, Cluster

cluster = Cluster().sync


@require_POST
def primes(request: HttpRequest) -> JsonResponse:
    """Say of each number whether it is a prime, using every core."""
    try:
        # The first request of a process starts the cluster: the server may have forked before.
        values = cluster.start().map(is_prime, json.loads(request.body))
    except BadInput as error:
        return JsonResponse({"error": str(error)}, status=422)
    return JsonResponse(values, safe=False)


urlpatterns = [path("primes", primes)]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["localhost", "127.0.0.1"])
app = get_wsgi_application()
