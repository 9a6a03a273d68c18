"""Files in `deploy/`: Prometheus accepts them, and they name only metrics that exist."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from activities import activity, map_of
from fake_cluster import FakeCluster, gateway
from jetmap.dispatch.costs import Cost
from tools import need_tool
from waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[3]
ALERTS, GRAFANA = ROOT / "deploy" / "alerts.yml", ROOT / "deploy" / "grafana.json"
# A case for each alert: the series, and the time at which it must fire.
CASES = """
rule_files: [ALERTS]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: jetmap_pool_ready_cores, values: 0x30}
      - {series: jetmap_pool_waiting_items, values: 5x30}
      - {series: 'jetmap_pool_maps_refused_recently{reason="no-workers"}', values: 3x30}
      - {series: 'jetmap_crashes_total{function="f",kind="died"}', values: 0+60x30}
      - {series: jetmap_pool_worker_start_failures_total, values: 0+10x30}
      - {series: jetmap_pool_store_bytes, values: 9x30}
      - {series: jetmap_pool_store_max_bytes, values: 10x30}
      - {series: jetmap_pool_streams_without_leader, values: 1x30}
      - {series: jetmap_broker_connected, values: 0x30}
    promql_expr_test:
      - expr: count(ALERTS{alertstate="firing"})
        eval_time: 25m
        exp_samples: [{labels: "{}", value: 7}]
  - interval: 1m
    input_series:
      - {series: jetmap_pool_ready_cores, values: 4x30}
      - {series: jetmap_pool_waiting_seconds, values: 4000x30}
      - {series: jetmap_pool_waiting_items, values: 5x30}
      - {series: jetmap_pool_store_bytes, values: 0x30}
      - {series: jetmap_pool_store_max_bytes, values: 0x30}
    promql_expr_test:
      - expr: ALERTS{alertstate="firing"}
        eval_time: 25m
        exp_samples:
          - labels: 'ALERTS{alertname="JetmapBacklog",alertstate="firing",severity="warning"}'
            value: 1
"""


def test_each_alert_fires_when_it_must_and_only_then(tmp_path: Path) -> None:
    promtool = need_tool("promtool")
    cases = tmp_path / "cases.yml"
    cases.write_text(CASES.replace("ALERTS]", f"{ALERTS}]"), encoding="utf-8")
    for arguments in (("check", "rules", str(ALERTS)), ("test", "rules", str(cases))):
        done = subprocess.run(
            [promtool, *arguments], capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, done.stdout + done.stderr
    named = {rule["alert"] for rule in rules()}
    assert len(named) == 8


def rules() -> list[dict[str, str]]:
    found: list[dict[str, str]] = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    return found


@pytest.mark.anyio
async def test_rules_and_panels_name_metrics_that_exist() -> None:
    cluster = FakeCluster()
    cluster.counts.heard("a", [("f", "ok", 3)], [("f", "SIGSEGV", 1)], 1, 1)
    cluster.costs["f"] = Cost()
    cluster.costs["f"].learn(3, 0.5, 10)
    cluster.stats.crashes["f", "died"] += 1
    cluster.watch.hear(activity(maps=[map_of()]))
    cluster.watch.pool.on_broker({"streams": [{"copies": 1}], "store": {"bytes": 1, "quota": 2}})
    cluster.watch.pool.advance(1e9)
    async with gateway(cluster) as client:
        await client.get("/healthz")
        text = (await client.get("/metrics")).text + (await client.get("/metrics/pool")).text
    exported = set(re.findall(r"^(jetmap_\w+)", text, re.MULTILINE))
    panels = json.loads(GRAFANA.read_text())["panels"]
    queries = [rule["expr"] for rule in rules()]
    queries += [target["expr"] for panel in panels for target in panel["targets"]]
    used = {name for query in queries for name in re.findall(r"jetmap_\w+", query)}
    assert used and used <= exported, used - exported
