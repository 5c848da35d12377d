"""Shard plan: the clips of one shard, with the fingerprints that decide which payloads have to be made."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from reelmill.datasets.column import Shard
from reelmill.datasets.manifest import Clip, Manifest
from reelmill.datasets.records.keys import clip_head
from reelmill.features.recipe import Recipe
from reelmill.pipelines.build.column_slice import SourceColumns
from reelmill.pipelines.build.job import BuildJob


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPlan:
    """What is known of one clip's record before its payload is made."""

    clip: Clip
    head: bytes
    """First bytes of the record: the manifest's row as a serialized SequenceExample."""
    fingerprint: str
    """Hash of everything that the payload depends on."""
    head_fingerprint: str
    """Hash of the head."""
    missing_source: str | None
    """Source column without a record of this clip, and the reason; None if no record is missing."""


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One shard and the plans of its clips."""

    shard: Shard
    clips: list[ClipPlan]
    """In the order of the manifest, which is the order of the records."""
    digest: str
    """Hash of everything that the shard's bytes, index rows and ledger rows depend on."""


def read_clips(job: BuildJob, shard: Shard) -> list[Clip]:
    """Read the clips of a shard from the manifest."""
    with Manifest(job.manifest_path) as manifest:
        return list(manifest.clips(split=shard.split, hash_start=shard.hash_start, hash_end=shard.hash_end))


def plan_shard(job: BuildJob, shard: Shard, clips: list[Clip], sources: SourceColumns) -> ShardPlan:
    """Plan a shard. Raises DatasetError if a source column was built from another manifest."""
    planned = [_plan_clip(job, clip, sources) for clip in clips]
    # The recipe's resume key adds its limits, which are in no fingerprint.
    rows = [[p.clip.clip_id, p.fingerprint, p.head_fingerprint] for p in planned]
    return ShardPlan(shard, planned, _digest(json.dumps([job.recipe.described(), rows]).encode()))


def _plan_clip(job: BuildJob, clip: Clip, sources: SourceColumns) -> ClipPlan:
    head = clip_head(clip, dataset=job.description.dataset)
    return ClipPlan(
        clip=clip,
        head=head,
        fingerprint=fingerprint(job.recipe, clip, sources.fingerprints(clip.clip_id)),
        head_fingerprint=_digest(head),
        missing_source=sources.missing_source(clip.clip_id),
    )


def fingerprint(recipe: Recipe, clip: Clip, sources: Mapping[str, str | None]) -> str:
    """Return a hash of everything that a clip's payload depends on: 32 hexadecimal digits.

    Args:
        recipe: makes the payload.
        clip: the clip.
        sources: fingerprint of the clip's record in each column that the recipe reads; None if there is no record.
    """
    content = [recipe.kind, recipe.parameters(), recipe.made_by(), dict(recipe.source(clip)), dict(sources)]
    return _digest(json.dumps(content, sort_keys=True).encode())


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
