"""Commit of a build: write index and ledger from the parts of all shards, then publish the new column."""

from collections import Counter
from dataclasses import dataclass, field, fields, replace
from typing import Any

from reelmill.datasets import storage
from reelmill.datasets.column import (
    DESCRIPTION,
    EXPECTED_REASONS,
    INDEX,
    LEDGER,
    LEDGER_SCHEMA,
    index_schema,
)
from reelmill.datasets.errors import BuildError, DatasetError
from reelmill.datasets.parquet import RowWriter
from reelmill.pipelines.build.job import BuildJob
from reelmill.pipelines.build.part import read_part


@dataclass(slots=True, kw_only=True)
class ColumnTotals:
    """Totals of a column. They depend on the dataset alone: metrics that DVC hashes."""

    clips: int
    written: int = 0
    quarantined: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    """Number of quarantined clips by reason."""
    damaged: int = 0
    """Written clips with errors from the decoder."""
    steps: int = 0
    """Frames, or other entries that the column counts, of all written clips."""
    bytes: int = 0
    """Size of all shards."""
    shards: int
    figures: dict[str, float] = field(default_factory=dict)
    """Mean over all steps of each of the recipe's figures."""

    def totals(self) -> dict[str, Any]:
        """Return the fields of this class as a dictionary, without those of subclasses."""
        return {field.name: getattr(self, field.name) for field in fields(ColumnTotals)}

    @property
    def expected_quarantine(self) -> int:
        """Number of clips that are quarantined for one of EXPECTED_REASONS."""
        return sum(self.reasons.get(reason, 0) for reason in EXPECTED_REASONS)

    @property
    def failed_share(self) -> float:
        """Share of failed clips among all that could have been written, 0 .. 1: bounded by ``max_quarantine``."""
        expected = self.expected_quarantine
        return (self.quarantined - expected) / max(1, self.clips - expected)


def write_tables(job: BuildJob, *, num_clips: int) -> ColumnTotals:
    """Write index and ledger from all parts into the build folder, in constant memory.

    Raises:
        BuildError: a shard was not built.
        DatasetError: the number of written and quarantined clips is not ``num_clips``.
    """
    shards = job.description.shard_list()
    totals = ColumnTotals(clips=num_clips, shards=len(shards))
    reasons: Counter[str] = Counter()
    sums = dict.fromkeys(job.recipe.figures, 0.0)
    with (
        RowWriter(storage.join(job.build_folder, INDEX), index_schema(sums)) as index,
        RowWriter(storage.join(job.build_folder, LEDGER), LEDGER_SCHEMA) as ledger,
    ):
        for shard in shards:
            try:
                part = read_part(job, shard)
            except FileNotFoundError:
                raise BuildError(f"shard {job.file_name(shard)} was not built") from None
            index.write(part.index)
            ledger.write(part.ledger)
            totals.written += len(part.index)
            totals.bytes += part.file_bytes
            totals.steps += sum(row["steps"] for row in part.index)
            totals.damaged += sum(row["decode_errors"] > 0 for row in part.ledger)
            reasons.update(row["reason"] for row in part.ledger if row["outcome"] == "quarantined")
            for name in sums:
                sums[name] += sum(row[name] * row["steps"] for row in part.index)
    totals.quarantined = reasons.total()
    totals.reasons = dict(sorted(reasons.items()))
    totals.figures = {name: round(total / max(1, totals.steps), 6) for name, total in sums.items()}
    if totals.written + totals.quarantined != num_clips:
        raise DatasetError(
            f"ledger not closed: {totals.written} written + {totals.quarantined} quarantined != {num_clips} clips"
        )
    return totals


def save_ledger(job: BuildJob) -> str:
    """Return a path where the user finds the ledger of a failed build.

    Without a published column this is the column's folder, otherwise the build folder: a published column stays
    unchanged.
    """
    path = storage.join(job.build_folder, LEDGER)
    if storage.exists(storage.join(job.column_folder, DESCRIPTION)):
        return path
    target = storage.join(job.column_folder, LEDGER)
    storage.write_bytes(target, storage.read_bytes(path))
    return target


def publish(job: BuildJob, totals: ColumnTotals) -> None:
    """Move the new files into the column's folder and delete the old ones and the build folder.

    The description is deleted first and written last, and a column without it counts as unfinished. So a reader
    never gets a mixture of old and new files, and a build that dies in between is repeated.
    """
    shards = job.description.shard_list()
    names = {INDEX, LEDGER, *map(job.file_name, shards)}
    kept = {job.file_name(shard) for shard in shards if read_part(job, shard).kept}
    storage.make_folder(job.column_folder)
    storage.remove(storage.join(job.column_folder, DESCRIPTION))
    for name in sorted(names - kept):
        storage.rename(storage.join(job.build_folder, name), storage.join(job.column_folder, name))
    for name in storage.list_names(job.column_folder):
        if name not in names:
            storage.remove(storage.join(job.column_folder, name))
    counts = {name: getattr(totals, name) for name in ("clips", "written", "quarantined", "steps", "bytes")}
    description = replace(job.description, totals=counts, figures=totals.figures)
    storage.write_bytes(storage.join(job.column_folder, DESCRIPTION), description.to_json())
    storage.remove_folder(job.build_folder)
