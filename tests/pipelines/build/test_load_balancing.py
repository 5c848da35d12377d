"""Load balancing: weights of shards and their order."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from reelmill.datasets.column import Shard
from reelmill.datasets.manifest import (
    HASH_SPACE,
    Clip,
    Manifest,
    ManifestInfo,
    clip_hash,
    to_table,
    write_tables,
)
from reelmill.pipelines.build.load_balancing import (
    CLIP_OVERHEAD_US,
    DEFAULT_DURATION_US,
    balance_shards,
    shard_weights,
)

Weights = st.lists(st.integers(0, 10**9), min_size=1, max_size=60)


@given(Weights, st.integers(1, 9))
def test_every_shard_occurs_once_and_the_load_is_balanced(values: list[int], workers: int) -> None:
    weights = {Shard("a", number, len(values)): value for number, value in enumerate(values)}
    order = balance_shards(weights, workers)
    assert sorted(order) == sorted(weights)
    loads = [sum(weights[shard] for shard in order[worker::workers]) for worker in range(workers)]
    full = [
        load for worker, load in enumerate(loads) if len(order[worker::workers]) == -(-len(order) // workers)
    ]
    # two workers with equally many shards differ by no more than the heaviest shard
    assert max(full) - min(full) <= max(values)


def test_sixteen_shards_for_two_workers() -> None:
    """In the order of their numbers, one worker would get a load of 68 and the other 124."""
    weights = {Shard("a", number, 16): 1 + number % 2 * 7 + number for number in range(16)}
    order = balance_shards(weights, 2)
    loads = [sum(weights[shard] for shard in order[worker::2]) for worker in range(2)]
    assert sum(loads) == 192
    assert abs(loads[0] - loads[1]) <= 2


def test_weight_of_a_shard_is_that_of_its_clips(tmp_path: Path) -> None:
    clips = [
        Clip(
            clip_id=f"clip{number}",
            video=f"{number}.mp4",
            media_id=str(number),
            split=("train", "val")[number % 3 == 0],
            start_us=number if number % 2 else None,
            end_us=1000 * number if number % 5 == 0 else None,
            duration_us=500_000 + number if number % 7 else None,
            probe_error="empty" if number == 11 else None,
        )
        for number in range(60)
    ]
    path = str(tmp_path / "manifest.parquet")
    write_tables(path, [to_table(clips)], ManifestInfo("set", []))
    with Manifest(path) as manifest:
        weights = shard_weights(manifest, {"train": 4, "val": 3})
        assert [shard for shard in weights if shard.split == "val"] == [Shard("val", n, 3) for n in range(3)]
        for shard, weight in weights.items():
            members = list(
                manifest.clips(split=shard.split, hash_start=shard.hash_start, hash_end=shard.hash_end)
            )
            assert all(
                shard.hash_start <= clip_hash(clip.clip_id) < shard.hash_end <= HASH_SPACE for clip in members
            )
            assert weight == sum(CLIP_OVERHEAD_US + duration_us(clip) for clip in members)


def duration_us(clip: Clip) -> int:
    if clip.probe_error is not None:
        return 0
    end = clip.end_us if clip.end_us is not None else clip.duration_us
    return DEFAULT_DURATION_US if end is None else max(0, end - (clip.start_us or 0))
