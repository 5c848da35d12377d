"""Part: a JSON file in the build folder with the index and ledger rows of one finished shard.

A part is written after its shard, so its existence means that the shard is complete. A later build of the same plan
resumes from it, and the final index and ledger are put together from all parts.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from reelmill.datasets import storage
from reelmill.datasets.column import Shard
from reelmill.pipelines.build.job import BuildJob
from reelmill.pipelines.build.shard_plan import ShardPlan

PART_SUFFIX = ".part.json"
"""A part has the name of its shard with this suffix."""


@dataclass(slots=True)
class Part:
    """Index and ledger rows of one finished shard. The fields are the keys of the JSON file."""

    digest: str
    """:attr:`ShardPlan.digest` of the plan that the shard was built from."""
    file_bytes: int
    """Size of the shard file."""
    kept: bool
    """Whether the shard is the published one, unchanged."""
    index: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the written clips."""
    ledger: list[dict[str, Any]] = field(default_factory=list)
    """Rows of all clips."""


def read_part(job: BuildJob, shard: Shard) -> Part:
    """Read the part of a finished shard. Raises FileNotFoundError if the shard is not finished."""
    return Part(**json.loads(storage.read_bytes(_part_path(job, shard))))


def write_part(job: BuildJob, shard: Shard, part: Part) -> None:
    """Write the part of a shard, which marks the shard as finished."""
    storage.write_bytes(_part_path(job, shard), json.dumps(asdict(part), sort_keys=True).encode())


def resumable_part(job: BuildJob, plan: ShardPlan) -> Part | None:
    """Return the part that an interrupted build left; None if there is none or it belongs to another plan."""
    try:
        part = read_part(job, plan.shard)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    if part.digest != plan.digest:
        return None
    path = storage.join(job.column_folder if part.kept else job.build_folder, job.file_name(plan.shard))
    return part if storage.exists(path) and storage.size(path) == part.file_bytes else None


def _part_path(job: BuildJob, shard: Shard) -> str:
    return storage.join(job.build_folder, job.file_name(shard) + PART_SUFFIX)
