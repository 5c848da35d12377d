"""One shard of a column, built as a whole: the unit of work, of retry and of commit.

Plain functions; nothing here knows of Beam. A shard is written under a temporary name in the build folder
and moved when complete; then its *part*, a JSON file with its rows of the index and of the ledger, is
written. A part says that its shard is done.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reelmill.datasets import storage
from reelmill.datasets.column import INDEX, LEDGER, REASONS, Column, Description, Shard
from reelmill.datasets.errors import CorruptRecordError, DatasetError
from reelmill.datasets.manifest import Clip, Manifest
from reelmill.datasets.records.keys import clip_head
from reelmill.datasets.records.tfrecord import FRAMING_BYTES, read_record_at, write_record
from reelmill.features.recipe import ClipError, Maker, Payload, Recipe, Request

RETRYABLE_REASONS = frozenset(
    {"missing", "empty", "unreadable", "timeout", "memory", "too_large", "probe_crashed"}
)
"""Reasons that another attempt may cure: such clips are tried again by the next build."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildJob:
    """What all shards of one build have in common. Pickled to the workers."""

    dataset: str
    """Path or URL of the dataset's folder."""
    manifest: str
    """Path or URL of the manifest."""
    build_folder: str
    """Where unpublished shards and parts lie."""
    dataset_name: str
    """What shard names begin with."""
    recipe: Recipe


@dataclass(slots=True)
class ShardCounters:
    """What building one shard came to; every field is a count."""

    clips: int = 0
    steps: int = 0
    """Frames, or whatever the column counts, of all written clips."""
    clips_made: int = 0
    """Clips for which the recipe had to be run."""
    steps_made: int = 0
    """Steps of those clips."""
    clips_copied: int = 0
    """Clips whose payload was copied from the previous build."""
    clips_quarantined: int = 0
    bytes_written: int = 0
    shards_kept: int = 0
    """1 for a shard that was left as it is."""
    shards_resumed: int = 0
    """1 for a shard that an interrupted build had finished."""


@dataclass(slots=True)
class Part:
    """What is known of one finished shard."""

    digest: str
    """Hash of the shard's plan: its clips, their fingerprints and heads, in order."""
    file_bytes: int
    """Length of the shard's file."""
    kept: bool
    """Whether the shard is the published one, unchanged."""
    index: list[dict[str, Any]] = field(default_factory=list)
    ledger: list[dict[str, Any]] = field(default_factory=list)


def part_path(job: BuildJob, shard: Shard) -> str:
    """Where the part of a shard lies."""
    return storage.join(job.build_folder, shard.file_name(job.dataset_name) + ".part.json")


def read_part(job: BuildJob, shard: Shard) -> Part:
    """The part of a finished shard. Raises FileNotFoundError."""
    return Part(**json.loads(storage.read_bytes(part_path(job, shard))))


def fingerprint(recipe: Recipe, clip: Clip, sources: Mapping[str, str | None]) -> str:
    """Hash of all that a clip's payload depends on: 32 hexadecimal digits.

    Args:
        recipe: what is made.
        clip: of what.
        sources: fingerprint of the clip's record in each column that the recipe reads; None: it has none.
    """
    content = [recipe.kind, recipe.parameters(), recipe.made_by(), dict(recipe.source(clip)), dict(sources)]
    return digest(json.dumps(content, sort_keys=True).encode())


def digest(data: bytes) -> str:
    """A 128-bit hash as 32 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPlan:
    """What to store for one clip, as known before it is decoded."""

    clip: Clip
    head: bytes
    fingerprint: str
    head_fingerprint: str
    missing_source: str | None
    """What is missing in the columns that it would be made from; None: nothing."""


def build_shard(
    job: BuildJob, shard: Shard, *, maker: Maker, on_clip: Callable[[int], None] = lambda _steps: None
) -> ShardCounters:
    """Build one shard unless it is there already.

    Args:
        job: the build.
        shard: which shard.
        maker: makes the payloads of clips that cannot be copied.
        on_clip: called after each clip with the number of its steps.
    """
    with Manifest(job.manifest) as manifest:
        clips = list(manifest.clips(split=shard.split, lowest=shard.lowest, below=shard.below))
    sources = SourceColumns(job, [clip.clip_id for clip in clips])
    plan = [_plan(job, clip, sources) for clip in clips]
    # the recipe's own text stands for its limits, which are in no fingerprint
    rows = [[p.clip.clip_id, p.fingerprint, p.head_fingerprint] for p in plan]
    plan_digest = digest(json.dumps([job.recipe.described(), rows]).encode())
    tally = ShardCounters(clips=len(plan))
    part = _resumable_part(job, shard, plan_digest)
    if part is not None:
        tally.shards_resumed = 1
    else:
        previous = ColumnSlice.published(job.dataset, job.recipe.name, [p.clip.clip_id for p in plan])
        with contextlib.closing(previous), contextlib.closing(sources):
            part = _unchanged_part(job, shard, plan, plan_digest, previous)
            if part is not None:
                tally.shards_kept = 1
            else:
                part = _Writer(job, shard, previous, sources, maker, tally, on_clip).write(plan, plan_digest)
        storage.write_bytes(part_path(job, shard), json.dumps(_as_dict(part), sort_keys=True).encode())
    if tally.shards_kept or tally.shards_resumed:
        for row in part.index:
            on_clip(row["steps"])
        for _ in range(len(plan) - len(part.index)):
            on_clip(0)
    tally.steps = sum(row["steps"] for row in part.index)
    tally.clips_quarantined = len(plan) - len(part.index)
    return tally


def _as_dict(part: Part) -> dict[str, Any]:
    return {name: getattr(part, name) for name in Part.__slots__}


def _plan(job: BuildJob, clip: Clip, sources: "SourceColumns") -> ClipPlan:
    head = clip_head(clip, dataset=job.dataset_name)
    return ClipPlan(
        clip=clip,
        head=head,
        fingerprint=fingerprint(job.recipe, clip, sources.fingerprints(clip)),
        head_fingerprint=digest(head),
        missing_source=sources.missing_source(clip),
    )


def _resumable_part(job: BuildJob, shard: Shard, plan_digest: str) -> Part | None:
    """The part that an interrupted build left, if it fits the plan."""
    try:
        part = read_part(job, shard)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    if part.digest != plan_digest:
        return None
    folder = storage.join(job.dataset, job.recipe.name) if part.kept else job.build_folder
    path = storage.join(folder, shard.file_name(job.dataset_name))
    return part if storage.exists(path) and storage.size(path) == part.file_bytes else None


class ColumnSlice:
    """Rows and records of some clips in a published column."""

    def __init__(
        self, column: Column | None, index: dict[str, dict[str, Any]], ledger: dict[str, dict[str, Any]]
    ) -> None:
        self.column = column
        """None: it is not there."""
        self.index = index
        """Row by clip_id."""
        self.ledger = ledger
        """Row by clip_id."""
        self._files: dict[str, BinaryIO] = {}

    @classmethod
    def published(cls, dataset: str, name: str, clip_ids: list[str]) -> "ColumnSlice":
        """Those of a column that may not be there."""
        try:
            return cls.existing(dataset, name, clip_ids)
        except (DatasetError, FileNotFoundError):
            return cls(None, {}, {})

    @classmethod
    def existing(cls, dataset: str, name: str, clip_ids: list[str]) -> "ColumnSlice":
        """Those of a column that must be there. Raises DatasetError or FileNotFoundError."""
        column = Column(dataset, name)
        return cls(column, *(_rows_of(storage.join(column.folder, f), clip_ids) for f in (INDEX, LEDGER)))

    def row(self, planned: ClipPlan) -> dict[str, Any] | None:
        """The index row of a clip whose record is what would be made."""
        row = self.index.get(planned.clip.clip_id)
        return row if row is not None and row["fingerprint"] == planned.fingerprint else None

    def quarantine(self, planned: ClipPlan) -> dict[str, Any] | None:
        """The ledger row of a clip that need not be tried again."""
        row = self.ledger.get(planned.clip.clip_id)
        if row is None or row["outcome"] != "quarantined" or row["fingerprint"] != planned.fingerprint:
            return None
        return None if row["reason"] in RETRYABLE_REASONS else row

    def record(self, row: dict[str, Any]) -> bytes:
        """The record that an index row tells of. Raises CorruptRecordError or FileNotFoundError."""
        assert self.column is not None
        path = self.column.path_of(row)
        if path not in self._files:
            self._files[path] = storage.open_read(path)
        return read_record_at(self._files[path], row["offset"], size=row["size"])

    def payload(self, planned: ClipPlan) -> Payload | None:
        """The clip's payload if it is there and intact."""
        row = self.row(planned)
        if row is None or self.column is None:
            return None
        try:
            record = self.record(row)
        except (CorruptRecordError, FileNotFoundError):
            return None
        entry = self.ledger.get(planned.clip.clip_id, {})
        return Payload(
            data=record[row["head_size"] :],
            steps=row["steps"],
            decode_errors=entry.get("decode_errors", 0),
            detail=entry.get("detail"),
            figures={name: row[name] for name in self.column.description.figures},
        )

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()


class SourceColumns:
    """The columns that a recipe reads, for the clips of one shard."""

    def __init__(self, job: BuildJob, clip_ids: list[str]) -> None:
        self._columns = {name: ColumnSlice.existing(job.dataset, name, clip_ids) for name in job.recipe.reads}

    def fingerprints(self, clip: Clip) -> dict[str, str | None]:
        """Of the clip's record in each column."""
        found = {name: records.index.get(clip.clip_id) for name, records in self._columns.items()}
        return {name: row["fingerprint"] if row else None for name, row in found.items()}

    def missing_source(self, clip: Clip) -> str | None:
        """In which column the clip has no record, and why; None: in none. Raises DatasetError."""
        for name, records in self._columns.items():
            if clip.clip_id not in records.index:
                entry = records.ledger.get(clip.clip_id)
                if entry is None:
                    raise DatasetError(
                        f"column {name!r} knows nothing of clip {clip.clip_id!r}: it was built from another "
                        f"manifest; build {name!r} again first"
                    )
                return f"{name}: {entry['reason']}"
        return None

    def request(self, clip: Clip) -> Request:
        """The clip with its records. Raises DatasetError."""
        records = {}
        for name, column in self._columns.items():
            try:
                records[name] = column.record(column.index[clip.clip_id])
            except (CorruptRecordError, FileNotFoundError) as error:
                raise DatasetError(
                    f"column {name!r} is damaged at clip {clip.clip_id!r} ({error}): build {name!r} again"
                ) from None
        return Request(clip, records)

    def close(self) -> None:
        """Close all files."""
        for records in self._columns.values():
            records.close()


def _rows_of(path: str, clip_ids: list[str]) -> dict[str, dict[str, Any]]:
    wanted = pa.array(clip_ids, pa.string())
    rows = {}
    with storage.open_read(path) as file:
        for batch in pq.ParquetFile(file).iter_batches():
            found = batch.filter(pc.is_in(batch["clip_id"], value_set=wanted))
            rows.update({row["clip_id"]: row for row in found.to_pylist()})
    return rows


def _has_shard(description: Description, shard: Shard, dataset_name: str) -> bool:
    return description.dataset == dataset_name and description.shards.get(shard.split) == shard.count


def _unchanged_part(
    job: BuildJob, shard: Shard, plan: list[ClipPlan], plan_digest: str, previous: ColumnSlice
) -> Part | None:
    """The published shard, if building it again would give the same bytes."""
    column = previous.column
    if column is None or not _has_shard(column.description, shard, job.dataset_name):
        return None
    index: list[dict[str, Any]] = []
    ledger: list[dict[str, Any]] = []
    end = 0
    for planned in plan:
        row = previous.row(planned)
        entry = previous.quarantine(planned) if row is None else previous.ledger.get(planned.clip.clip_id)
        if (
            entry is None
            or entry["split"] != shard.split
            or planned.missing_source not in (None, entry["detail"])
        ):
            return None
        ledger.append(entry)
        if row is not None:
            place = (row["split"], row["shard"], row["row"], row["offset"], row["head_fingerprint"])
            if place != (shard.split, shard.number, len(index), end, planned.head_fingerprint):
                return None
            index.append(row)
            end = row["offset"] + row["size"] + FRAMING_BYTES
    path = column.shard_path(shard)
    if not storage.exists(path) or storage.size(path) != end:
        return None
    return Part(plan_digest, end, kept=True, index=index, ledger=ledger)


class _Writer:
    """Writes the file of one shard: records in the order of the plan, copied where nothing changed."""

    def __init__(
        self,
        job: BuildJob,
        shard: Shard,
        previous: ColumnSlice,
        sources: SourceColumns,
        maker: Maker,
        tally: ShardCounters,
        on_clip: Callable[[int], None],
    ) -> None:
        self.job, self.shard, self.previous, self.sources = job, shard, previous, sources
        self.maker, self.tally, self.on_clip = maker, tally, on_clip

    def write(self, plan: list[ClipPlan], plan_digest: str) -> Part:
        """Write the shard under its name in the build folder."""
        part = Part(plan_digest, 0, kept=False)
        path = storage.join(self.job.build_folder, self.shard.file_name(self.job.dataset_name))
        wanted = [planned.clip for planned in plan if not self._is_known(planned)]
        made = self._made(wanted)
        with storage.replacing(path) as file:
            for planned in plan:
                outcome = self._known(planned) if self._is_known(planned) else next(made)
                self.on_clip(self._append(file, part, planned, outcome))
        self.tally.bytes_written = part.file_bytes
        return part

    def _made(self, clips: Iterable[Clip]) -> Iterator[Payload | ClipError]:
        """Run the recipe."""
        wanted = list(clips)
        outcomes = self.maker.make(self.sources.request(clip) for clip in wanted)
        for clip, outcome in zip(wanted, outcomes, strict=True):
            self.tally.clips_made += clip.probe_error is None
            self.tally.steps_made += outcome.steps if isinstance(outcome, Payload) else 0
            yield outcome

    def _is_known(self, planned: ClipPlan) -> bool:
        if planned.missing_source is not None:
            return True
        return self.previous.row(planned) is not None or self.previous.quarantine(planned) is not None

    def _known(self, planned: ClipPlan) -> Payload | ClipError:
        """The outcome of a clip for which the recipe need not be run: it is copied, or known to fail."""
        if planned.missing_source is not None:
            return ClipError("not_in_source", planned.missing_source)
        outcome: Payload | ClipError | None
        quarantined = self.previous.quarantine(planned)
        if quarantined is not None:
            outcome = ClipError(quarantined["reason"], quarantined["detail"])
        else:
            outcome = self.previous.payload(planned)
        if outcome is None:  # its record is damaged
            return next(self._made([planned.clip]))
        self.tally.clips_copied += 1
        return outcome

    def _append(self, file: BinaryIO, part: Part, planned: ClipPlan, outcome: Payload | ClipError) -> int:
        """Write one clip's record and its rows of index and ledger. Returns its steps."""
        clip_id = planned.clip.clip_id
        entry: dict[str, Any] = {
            "clip_id": clip_id,
            "split": self.shard.split,
            "outcome": "written",
            "reason": None,
            "detail": None,
            "decode_errors": 0,
            "fingerprint": planned.fingerprint,
        }
        part.ledger.append(entry)
        if isinstance(outcome, ClipError):
            assert outcome.reason in REASONS, outcome.reason
            entry.update(outcome="quarantined", reason=outcome.reason, detail=outcome.detail)
            return 0
        entry.update(decode_errors=outcome.decode_errors, detail=outcome.detail)
        record = planned.head + outcome.data
        part.index.append(
            {
                "clip_id": clip_id,
                "split": self.shard.split,
                "shard": self.shard.number,
                "row": len(part.index),
                "offset": part.file_bytes,
                "size": len(record),
                "head_size": len(planned.head),
                "steps": outcome.steps,
                "fingerprint": planned.fingerprint,
                "head_fingerprint": planned.head_fingerprint,
                **{name: float(outcome.figures[name]) for name in self.job.recipe.figures},
            }
        )
        part.file_bytes += write_record(file, record)
        return outcome.steps
