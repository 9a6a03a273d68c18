"""Signed addresses of a job's events."""

from __future__ import annotations

import pytest

from fake_cluster import gateway
from jetmap_api.signer import Signer
from jobs_over_http import site, submit
from over_http import check_problem

pytestmark = pytest.mark.anyio
BEARER = {"authorization": "Bearer t"}


async def test_an_address_has_a_signature_and_an_end() -> None:
    cluster, _ = site()
    async with gateway(cluster, token="t") as client:
        client.headers.update(BEARER)
        job = await submit(client, "double", [1])
        made = await client.post(f"/jobs/{job['id']}/events/address?ttl=5")
        for ttl in ("0", "3601", "1e3", "x", "-1"):
            bad = await client.post(f"/jobs/{job['id']}/events/address?ttl={ttl}")
            check_problem(bad, 400, "bad-parameter")
        check_problem(await client.post("/jobs/none/events/address"), 404, "unknown-job")
        del client.headers["authorization"]
        over = Signer("t").events(job["id"], 1)
        late = await client.get(f"{job['links']['events']}?signature={over}")
        assert "time is over" in check_problem(late, 401, "unauthorized")["detail"]
    document = made.json()
    assert document["url"].startswith(f"/jobs/{job['id']}/events?signature=")
    assert document["expires"].endswith("Z") and made.headers["cache-control"] == "no-store"


async def test_without_a_token_the_plain_address_is_enough() -> None:
    cluster, _ = site()
    async with gateway(cluster) as client:
        job = await submit(client, "double", [1])
        document = (await client.post(f"/jobs/{job['id']}/events/address")).json()
        assert (await client.get(f"{document['url']}?signature=x")).status_code == 200
    assert document == {"url": f"/jobs/{job['id']}/events", "expires": None}
