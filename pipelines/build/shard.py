"""Building one shard of a column: the unit of work, of retry and of commit.

Plain functions that do not import Beam. A shard is written under a temporary name in the build folder and renamed when
it is complete; then its part is written, which marks the shard as finished.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from reelmill.datasets import storage
from reelmill.datasets.column import Shard
from reelmill.datasets.errors import DatasetError
from reelmill.datasets.manifest import Clip, Manifest
from reelmill.datasets.records.tfrecord import FRAMING_BYTES
from reelmill.datasets.shard_writer import ShardWriter
from reelmill.features.recipe import ClipError, Maker, Payload
from reelmill.pipelines.build.column_slice import ColumnSlice, StoredClip, request_clip
from reelmill.pipelines.build.job import BuildJob
from reelmill.pipelines.build.part import Part, resumable_part, write_part
from reelmill.pipelines.build.shard_plan import ShardPlan, plan_shard


def build_shard(
    job: BuildJob, shard: Shard, *, maker: Maker, on_progress: Callable[..., None]
) -> Counter[str]:
    """Build one shard, unless an interrupted build finished it or the published one is still right.

    Args:
        job: the build.
        shard: the shard to build.
        maker: makes the payloads of clips that cannot be copied.
        on_progress: called with ``clips`` and ``frames``, the numbers of clips and steps since the last call.

    Returns:
        The work that it took: the fields of :class:`BuildResult` from ``clips_made`` to ``shards_resumed``, without
        those that are 0.
    """
    with Manifest(job.manifest_path) as manifest:
        clips = list(manifest.clips(split=shard.split, hash_start=shard.hash_start, hash_end=shard.hash_end))
    clip_ids = [clip.clip_id for clip in clips]
    counters: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:

        def open_slice(column: str) -> ColumnSlice:
            return stack.enter_context(contextlib.closing(ColumnSlice(job.dataset, column, clip_ids)))

        def make(clips: Iterable[Clip]) -> Iterator[Payload | ClipError]:
            return maker.make(request_clip(clip, sources) for clip in clips)

        sources = {column: open_slice(column) for column in job.recipe.reads}
        plan = plan_shard(job, shard, clips, sources)
        part = resumable_part(job, plan)
        if part is not None:
            counters["shards_resumed"] = 1
        else:
            stored: list[StoredClip | None] = [None] * len(clips)
            with contextlib.suppress(DatasetError, FileNotFoundError):  # there may be no published column
                published = open_slice(job.recipe.name)
                stored = [published.stored(p.clip.clip_id, p.fingerprint) for p in plan.clips]
            part = _unchanged_part(job, plan, stored)
            if part is not None:
                counters["shards_kept"] = 1
            else:
                part = _write_shard(job, plan, _outcomes(plan, stored, make, counters), on_progress)
            write_part(job, shard, part)
    if counters["shards_resumed"] or counters["shards_kept"]:
        on_progress(clips=len(clips), frames=sum(row["steps"] for row in part.index))
    return counters


def _unchanged_part(job: BuildJob, plan: ShardPlan, stored: Sequence[StoredClip | None]) -> Part | None:
    """Return a part that keeps the published shard; None if building it again would give other bytes or rows."""
    part = Part(plan.digest, 0, kept=True)
    for planned, previous in zip(plan.clips, stored, strict=True):
        if previous is None or previous.ledger_row["split"] != plan.shard.split:
            return None
        if planned.missing_source not in (None, previous.ledger_row["detail"]):
            return None
        part.ledger.append(previous.ledger_row)
        row = previous.index_row
        if row is not None:
            expected = {
                "split": plan.shard.split,
                "shard": plan.shard.number,
                "row": len(part.index),
                "offset": part.file_bytes,
                "head_fingerprint": planned.head_fingerprint,
            }
            if not expected.items() <= row.items():
                return None
            part.index.append(row)
            part.file_bytes += row["size"] + FRAMING_BYTES
    path = storage.join(job.column_folder, job.file_name(plan.shard))
    return part if storage.exists(path) and storage.size(path) == part.file_bytes else None


def _outcomes(
    plan: ShardPlan,
    stored: Sequence[StoredClip | None],
    make: Callable[[Iterable[Clip]], Iterator[Payload | ClipError]],
    counters: Counter[str],
) -> Iterator[Payload | ClipError]:
    """Yield the outcome of each clip: the stored one if it holds, otherwise that of the recipe."""
    pairs = list(zip(plan.clips, stored, strict=True))
    new = make([p.clip for p, previous in pairs if p.missing_source is None and previous is None])
    for planned, previous in pairs:
        if planned.missing_source is not None:
            yield ClipError("not_in_source", planned.missing_source)
            continue
        outcome = previous.outcome() if previous else None
        if outcome is not None:
            counters["clips_copied"] += 1
        else:
            # A damaged record is noticed only now. The clip is not among those of `new`, so it is made separately.
            outcome = next(make([planned.clip]) if previous else new)
            counters["clips_made"] += planned.clip.probe_error is None
            counters["steps_made"] += outcome.steps if isinstance(outcome, Payload) else 0
        yield outcome


def _write_shard(
    job: BuildJob,
    plan: ShardPlan,
    outcomes: Iterable[Payload | ClipError],
    on_progress: Callable[..., None],
) -> Part:
    """Write the shard file into the build folder, and return its part."""
    with storage.open_atomic(storage.join(job.build_folder, job.file_name(plan.shard))) as file:
        writer = ShardWriter(file, plan.shard)
        for planned, outcome in zip(plan.clips, outcomes, strict=True):
            if isinstance(outcome, ClipError):
                writer.quarantine(
                    planned.clip.clip_id,
                    reason=outcome.reason,
                    detail=outcome.detail,
                    fingerprint=planned.fingerprint,
                )
                on_progress(clips=1)
                continue
            writer.write(
                planned.clip.clip_id,
                head=planned.head,
                payload=outcome.data,
                steps=outcome.steps,
                fingerprint=planned.fingerprint,
                head_fingerprint=planned.head_fingerprint,
                detail=outcome.detail,
                decode_errors=outcome.decode_errors,
                figures={name: float(outcome.figures[name]) for name in job.recipe.figures},
            )
            on_progress(clips=1, frames=outcome.steps)
    return Part(plan.digest, writer.file_bytes, kept=False, index=writer.index, ledger=writer.ledger)
