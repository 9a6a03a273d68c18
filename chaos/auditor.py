"""Reads every job once more when all is over, also those of callers that were killed, and then
removes them all. What it reads it writes down as a caller does, as the map ``audit.<job>``."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any

import httpx

from .plans import Plan
from .record import Record, value
from .web import failed

PREFIX = "audit."
WAIT = 60  # Seconds that an unfinished job may go without an outcome.
PATIENCE = httpx.Timeout(2 * WAIT)


async def main(url: str, directory: str) -> None:
    record = Record(Path(directory) / "auditor.maps")
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client:
        for plan, job in submitted(Path(directory)):
            record.begin(plan)
            found, last = [], {}
            params = {"wait": str(WAIT)}
            headers = {"Accept": "application/jsonl"}
            answer = await client.get(f"/jobs/{job}/results", params=params, headers=headers)
            for text in answer.text.splitlines():
                line = json.loads(text)
                if "value" in line:
                    found.append(value(line["index"], line["value"]))
                elif "error" in line:
                    found.append(failed(line["error"] | {"index": line["index"]}))
                else:
                    last = line
            record.outcomes(plan, found)
            whole = "done" in last and "next" not in last
            record.end(plan, "done" if whole else "failed", "" if whole else json.dumps(last))
        while jobs := (await client.get("/jobs?limit=1000")).json()["jobs"]:
            for document in jobs:
                answer = await client.delete(f"/jobs/{document['id']}")
                assert answer.status_code in (204, 404), answer.text


def submitted(directory: Path) -> list[tuple[Plan, str]]:
    """The jobs whose callers had a ticket."""
    begun: dict[str, Any] = {}
    found = []
    for path in sorted(directory.glob("*.maps")):
        for text in path.read_bytes().splitlines(keepends=True):
            if not text.endswith(b"\n"):
                continue  # its caller was killed while it wrote
            line = json.loads(text)
            if line["e"] == "begin":
                begun[line["m"]] = line
            elif line["e"] == "ticket":
                first = begun[line["m"]]
                name = f"{PREFIX}{line['m']}"
                found.append((Plan(name, first["function"], "audit", first["items"]), line["job"]))
    return found


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(main(*json.loads(sys.argv[1])))
