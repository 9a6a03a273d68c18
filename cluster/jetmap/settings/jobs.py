"""The settings of jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .kinds import Count, Replicas, Retention, Size, Weight
from .metadata import Section, setting


@dataclass(frozen=True)
class JobSettings(Section):
    """The storage of jobs, and their share of the cores."""

    title: ClassVar[str] = "Jobs"

    job_ttl: Retention = setting(
        86_400.0,
        "Seconds to keep a job and its outcomes after its end: 1 to 3,153,600,000 (a hundred "
        "years).",
    )
    job_store_bytes: Size = setting(
        8 << 30,
        "Bytes that the inputs and outcomes of all jobs may take in the store; more is refused "
        "(507).",
    )
    job_replicas: Replicas = setting(
        0,
        "Copies of the jobs' streams when jetmap creates them, 1-5. 0: three if the servers can "
        "hold them, else one.",
    )
    job_weight: Weight = setting(
        0.25, "A job's share of the cores beside a map's: 0.25 is a quarter of what a map gets."
    )
    max_running_jobs: Count = setting(64, "Jobs that one process runs at once; others wait.")
