"""Building a column: plan its shards, run them through Beam, close the ledger, publish.

The published column stays whole and readable until the new one is complete: everything is made in a build
folder beside it and moved at the end. A build that is stopped anywhere goes on from there.
"""

import contextlib
import fcntl
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reelmill.datasets import storage
from reelmill.datasets.column import (
    DESCRIPTION,
    INDEX,
    LEDGER,
    LEDGER_SCHEMA,
    NATURAL_REASONS,
    Column,
    Description,
    Shard,
    index_schema,
)
from reelmill.datasets.errors import BuildError, DatasetError
from reelmill.datasets.manifest import FILE_NAME, Manifest, clip_from_row
from reelmill.features.recipe import Recipe
from reelmill.pipelines.build.load_balancing import balance_shards, shard_weights
from reelmill.pipelines.build.shard import BuildJob, read_part
from reelmill.pipelines.execution.progress import ProgressMonitor
from reelmill.pipelines.execution.runner import available_cores, run_graph

TARGET_SHARD_BYTES = 128 << 20
"""Size that the automatic number of shards aims at."""
TARGET_SHARD_CLIPS = 8
"""A small dataset gets a shard for about this many clips, so that several workers have something to do ..."""
MAX_SMALL_SHARDS = 32
"""... but no more than this many shards for that reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """What a build came to."""

    clips: int
    written: int
    quarantined: int
    reasons: dict[str, int]
    """Number of quarantined clips by reason."""
    damaged: int
    """Written clips whose decoder complained."""
    steps: int
    """Frames, or whatever the column counts, in all written clips."""
    bytes: int
    """Length of all shards."""
    shards: int
    clips_made: int
    """Clips for which the recipe was run; the others were copied or kept."""
    steps_made: int
    clips_copied: int
    shards_kept: int
    shards_resumed: int
    figures: dict[str, float]
    """Mean over all steps of each of the recipe's figures."""
    remarks: list[str]
    """Warnings of the recipe about the figures."""
    startup_s: float
    """Wall-clock time until the first worker was ready."""
    working_s: float
    """Wall-clock time from then to the last clip."""

    def deterministic(self) -> dict[str, Any]:
        """What depends on the dataset alone: for metrics that DVC hashes."""
        keys = (
            "clips",
            "written",
            "quarantined",
            "reasons",
            "damaged",
            "steps",
            "bytes",
            "shards",
            "figures",
        )
        return {key: value for key, value in asdict(self).items() if key in keys}

    @property
    def quarantined_as_expected(self) -> int:
        """Clips that are quarantined because of what they are: see ``NATURAL_REASONS``."""
        return sum(self.reasons.get(reason, 0) for reason in NATURAL_REASONS)

    @property
    def failed_share(self) -> float:
        """Quarantined clips among those that might have been written: what ``max_quarantine`` bounds."""
        return (self.quarantined - self.quarantined_as_expected) / max(
            1, self.clips - self.quarantined_as_expected
        )


def plan_shards(manifest: Manifest, recipe: Recipe, *, shards: int | None) -> dict[str, int]:
    """Number of shards of each split, from the manifest alone.

    Args:
        manifest: the clips.
        recipe: tells how long a record will be.
        shards: the number for every split; None: a power of two that keeps shards near 128 MiB.
    """
    clips: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for table in manifest.tables():
        for row in table.to_pylist():
            clips[row["split"]] += 1
            total[row["split"]] += recipe.expected_bytes(clip_from_row(row)) if shards is None else 0
    if shards is not None:
        return dict.fromkeys(sorted(clips), shards)
    return {
        split: _power_of_two(
            max(total[split] / TARGET_SHARD_BYTES, min(count / TARGET_SHARD_CLIPS, MAX_SMALL_SHARDS))
        )
        for split, count in sorted(clips.items())
    }


def shards_of_column(dataset: str, column: str, manifest: Manifest) -> dict[str, int]:
    """Number of shards of each split in a finished column, for one that is to be joined with it.

    Raises:
        DatasetError: it is not there, or was built from a manifest with other splits.
    """
    shards = Column(dataset, column).description.shards
    splits = sorted({split for table in manifest.tables(["split"]) for split in table["split"].to_pylist()})
    if splits != sorted(shards):
        raise DatasetError(
            f"column {column!r} has the splits {', '.join(sorted(shards))}, the manifest {', '.join(splits)}: "
            f"build {column!r} again first"
        )
    return shards


def _power_of_two(least: float) -> int:
    count = 1
    while count < least:
        count *= 2
    return count


def build_column(
    dataset: str,
    recipe: Recipe,
    *,
    shards: int | None = None,
    max_quarantine: float = 0.0,
    workers: int | None = None,
    beam_options: Sequence[str] = (),
) -> BuildResult:
    """Build or rebuild one column of a dataset.

    Args:
        dataset: path or URL of the dataset's folder, with its manifest.
        recipe: what to make.
        shards: shards for each split; None: decided from the manifest.
        max_quarantine: largest share of quarantined clips, 0 .. 1, with which the build succeeds.
        workers: local worker processes; None: one for each core.
        beam_options: options for Beam, which may name another runner.

    Raises:
        DatasetError: there is no usable manifest.
        BuildError: too many clips were quarantined, another build is running, or a worker gave up.
    """
    with Manifest(storage.join(dataset, FILE_NAME)) as manifest, _lock(dataset, recipe.name) as build_folder:
        description = Description(
            dataset=manifest.info.dataset,
            name=recipe.name,
            kind=recipe.kind,
            parameters=recipe.parameters(),
            made_by={"reelmill": version("reelmill"), **recipe.made_by()},
            shards=(
                plan_shards(manifest, recipe, shards=shards)
                if recipe.follows is None
                else shards_of_column(dataset, recipe.follows, manifest)
            ),
            made_from={name: Column(dataset, name).state() for name in recipe.reads},
        )
        job = BuildJob(
            dataset=dataset,
            manifest=manifest.path,
            build_folder=build_folder,
            dataset_name=manifest.info.dataset,
            recipe=recipe,
        )
        _remove_leftovers(build_folder, description)
        with ProgressMonitor(
            recipe.name, clips=manifest.num_clips, shards=len(description.shard_list())
        ) as progress:
            order = balance_shards(shard_weights(manifest, description.shards), workers or available_cores())
            counters = _run(job, order, progress.address, workers, beam_options)
        result = _close(job, description, counters, manifest.num_clips, progress)
        if result.failed_share > max_quarantine:
            ledger = _save_ledger(job)
            reasons = ", ".join(f"{count} {reason}" for reason, count in result.reasons.items())
            expected = result.quarantined_as_expected
            raise BuildError(
                f"{result.quarantined - expected} of {result.clips - expected} clips are quarantined, "
                f"more than max_quarantine = {max_quarantine:g} allows ({reasons}): see {ledger}, mend the clips "
                "or raise max_quarantine"
            )
        _publish(job, description, result)
    return result


def _run(
    job: BuildJob,
    shards: Sequence[Shard],
    progress: str,
    workers: int | None,
    beam_options: Sequence[str],
) -> dict[str, int]:
    def graph(pipeline: Any) -> None:
        from reelmill.pipelines.build.shard_transform import BuildShards

        _ = pipeline | BuildShards(job=job, shards=shards, progress=progress)

    return run_graph(graph, beam_options=beam_options, workers=workers)


@contextlib.contextmanager
def _lock(dataset: str, column: str) -> Iterator[str]:
    """The build folder, held against a second build of the same column on this machine."""
    folder = storage.join(dataset, f".{column}.build")
    storage.make_folder(folder)
    if storage.is_url(folder):
        yield folder
        return
    with open(storage.join(folder, "lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BuildError(f"another build of {column!r} in {dataset!r} is running") from None
        yield folder


def _remove_leftovers(build_folder: str, description: Description) -> None:
    """Delete what is of no use to this build: half-written files, and shards of another plan."""
    names = {s.file_name(description.dataset) for s in description.shard_list()}
    useful = {"lock", *names, *(name + ".part.json" for name in names)}
    for name in storage.names(build_folder):
        if name not in useful:
            storage.remove(storage.join(build_folder, name))


def _close(
    job: BuildJob, description: Description, counters: dict[str, int], clips: int, progress: ProgressMonitor
) -> BuildResult:
    """Write index and ledger from the parts, in constant memory, and check that no clip is missing."""
    reasons: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    sums = dict.fromkeys(job.recipe.figures, 0.0)
    with (
        _TableWriter(storage.join(job.build_folder, INDEX), index_schema(sums)) as index,
        _TableWriter(storage.join(job.build_folder, LEDGER), LEDGER_SCHEMA) as ledger,
    ):
        for shard in description.shard_list():
            try:
                part = read_part(job, shard)
            except FileNotFoundError:
                raise BuildError(f"shard {shard.file_name(job.dataset_name)} was not built") from None
            index.write(part.index)
            ledger.write(part.ledger)
            counts["written"] += len(part.index)
            counts["bytes"] += part.file_bytes
            counts["steps"] += sum(row["steps"] for row in part.index)
            for name in sums:
                sums[name] += sum(row[name] * row["steps"] for row in part.index)
            counts["damaged"] += sum(row["decode_errors"] > 0 for row in part.ledger)
            reasons.update(row["reason"] for row in part.ledger if row["outcome"] == "quarantined")
    quarantined = reasons.total()
    if counts["written"] + quarantined != clips:
        raise DatasetError(
            f"ledger not closed: {counts['written']} written + {quarantined} quarantined != {clips} clips"
        )
    figures = {name: round(total / max(1, counts["steps"]), 6) for name, total in sums.items()}
    return BuildResult(
        clips=clips,
        written=counts["written"],
        quarantined=quarantined,
        reasons=dict(sorted(reasons.items())),
        damaged=counts["damaged"],
        steps=counts["steps"],
        bytes=counts["bytes"],
        shards=len(description.shard_list()),
        clips_made=counters.get("clips_made", 0),
        steps_made=counters.get("steps_made", 0),
        clips_copied=counters.get("clips_copied", 0),
        shards_kept=counters.get("shards_kept", 0),
        shards_resumed=counters.get("shards_resumed", 0),
        figures=figures,
        remarks=job.recipe.remarks(figures),
        startup_s=progress.startup_s,
        working_s=progress.working_s,
    )


class _TableWriter:
    """A Parquet file written in row groups of bounded size; the same rows give the same bytes."""

    ROWS = 4096

    def __init__(self, path: str, schema: pa.Schema) -> None:
        self._schema = schema
        self._file = storage.open_write(path)
        self._writer = pq.ParquetWriter(self._file, schema, compression="zstd", write_page_checksum=True)
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> "_TableWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()
        self._file.close()

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        self._rows.extend(rows)
        while len(self._rows) >= self.ROWS:
            self._flush()

    def _flush(self) -> None:
        group, self._rows = self._rows[: self.ROWS], self._rows[self.ROWS :]
        if group:
            self._writer.write_table(pa.Table.from_pylist(group, schema=self._schema))


def _save_ledger(job: BuildJob) -> str:
    """Put the ledger of a failed build where it can be found; a column published before stays as it was."""
    made = storage.join(job.build_folder, LEDGER)
    published = storage.join(job.dataset, job.recipe.name)
    if storage.exists(storage.join(published, DESCRIPTION)):
        return made
    target = storage.join(published, LEDGER)
    storage.write_bytes(target, storage.read_bytes(made))
    return target


def _publish(job: BuildJob, description: Description, result: BuildResult) -> None:
    """Move the new files into the column.

    Its description is deleted first and written last, and a column without one is unfinished: a reader never
    meets a mixture, and a build that dies here is repeated.
    """
    column = storage.join(job.dataset, job.recipe.name)
    totals = {key: getattr(result, key) for key in ("clips", "written", "quarantined", "steps", "bytes")}
    storage.make_folder(column)
    moved = {INDEX, LEDGER}
    names = {shard.file_name(job.dataset_name) for shard in description.shard_list()}
    moved |= {s.file_name(job.dataset_name) for s in description.shard_list() if not read_part(job, s).kept}
    storage.remove(storage.join(column, DESCRIPTION))
    for name in sorted(moved):
        storage.rename(storage.join(job.build_folder, name), storage.join(column, name))
    for name in storage.names(column):
        if name not in names | {INDEX, LEDGER}:
            storage.remove(storage.join(column, name))
    content = Description(**{**asdict(description), "totals": totals, "figures": result.figures}).to_json()
    storage.write_bytes(storage.join(column, DESCRIPTION), content)
    storage.remove_folder(job.build_folder)
