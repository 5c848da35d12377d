"""Build job: the new column's description, its number of shards, and the paths that a build uses."""

from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version

from reelmill.datasets import storage
from reelmill.datasets.column import Column, Description, Shard
from reelmill.datasets.errors import DatasetError
from reelmill.datasets.manifest import FILE_NAME, Manifest, clip_from_row
from reelmill.features.recipe import Recipe

TARGET_SHARD_BYTES = 128 << 20
"""Shard size that the automatic number of shards aims at."""
TARGET_SHARD_CLIPS = 8
"""A small dataset gets about one shard for this many clips, so that there is work for several workers ..."""
MAX_SMALL_SHARDS = 32
"""... but no more shards than this for that reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildJob:
    """What all shards of one build have in common. Pickled to the workers."""

    dataset: str
    """Path or URL of the dataset's folder."""
    recipe: Recipe
    """How the column is made."""
    description: Description
    """Content of the new ``column.json``, still without totals and figures."""

    @property
    def manifest_path(self) -> str:
        """Path or URL of the manifest."""
        return storage.join(self.dataset, FILE_NAME)

    @property
    def build_folder(self) -> str:
        """Folder of the files that are not published yet; kept when a build is interrupted."""
        return build_folder(self.dataset, self.recipe.name)

    @property
    def column_folder(self) -> str:
        """Folder of the published column."""
        return storage.join(self.dataset, self.recipe.name)

    def file_name(self, shard: Shard) -> str:
        """Return the file name of a shard, the same in both folders."""
        return shard.file_name(self.description.dataset)


def build_folder(dataset: str, column: str) -> str:
    """Return the path of the folder in which a column is built."""
    return storage.join(dataset, f".{column}.build")


def plan_build(dataset: str, recipe: Recipe, manifest: Manifest, *, shards: int | None) -> BuildJob:
    """Describe the column to build.

    Args:
        dataset: path or URL of the dataset's folder.
        recipe: how to make the column.
        manifest: the clips.
        shards: number of shards of each split; None: chosen by :func:`choose_shard_counts`. Ignored for a recipe
            that is sharded like another column.

    Raises:
        DatasetError: a column that the recipe depends on is missing or was built from a manifest with other splits.
    """
    description = Description(
        dataset=manifest.info.dataset,
        name=recipe.name,
        kind=recipe.kind,
        parameters=recipe.parameters(),
        made_by={"reelmill": version("reelmill"), **recipe.made_by()},
        shards=(
            choose_shard_counts(manifest, recipe, shards=shards)
            if recipe.follows is None
            else copy_shard_counts(dataset, recipe.follows, manifest)
        ),
        made_from={name: Column(dataset, name).state() for name in recipe.reads},
    )
    return BuildJob(dataset=dataset, recipe=recipe, description=description)


def choose_shard_counts(manifest: Manifest, recipe: Recipe, *, shards: int | None) -> dict[str, int]:
    """Return the number of shards of each split, from the manifest alone.

    Args:
        manifest: the clips.
        recipe: estimates the size of a record.
        shards: number of shards of every split; None: a power of two with which shards have about 128 MiB.
    """
    clips: Counter[str] = Counter()
    total_bytes: Counter[str] = Counter()
    for table in manifest.tables():
        for row in table.to_pylist():
            clips[row["split"]] += 1
            total_bytes[row["split"]] += recipe.expected_bytes(clip_from_row(row)) if shards is None else 0
    if shards is not None:
        return dict.fromkeys(sorted(clips), shards)
    return {
        split: _next_power_of_two(
            max(total_bytes[split] / TARGET_SHARD_BYTES, min(count / TARGET_SHARD_CLIPS, MAX_SMALL_SHARDS))
        )
        for split, count in sorted(clips.items())
    }


def copy_shard_counts(dataset: str, column: str, manifest: Manifest) -> dict[str, int]:
    """Return the number of shards of each split in a finished column, so that another column can be joined with it.

    Raises:
        DatasetError: the column is missing or was built from a manifest with other splits.
    """
    shards = Column(dataset, column).description.shards
    splits = sorted({split for table in manifest.tables(["split"]) for split in table["split"].to_pylist()})
    if splits != sorted(shards):
        raise DatasetError(
            f"column {column!r} has the splits {', '.join(sorted(shards))}, the manifest {', '.join(splits)}: "
            f"build {column!r} again first"
        )
    return shards


def _next_power_of_two(minimum: float) -> int:
    count = 1
    while count < minimum:
        count *= 2
    return count
