"""How shards are dealt to workers."""

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
from reelmill.pipelines.build.load_balancing import LEAST_US, UNKNOWN_US, dealt, shard_weights

Weights = st.lists(st.integers(0, 10**9), min_size=1, max_size=60)


@given(Weights, st.integers(1, 9))
def test_every_shard_is_dealt_once_and_the_work_is_even(values: list[int], workers: int) -> None:
    weights = {Shard("a", number, len(values)): value for number, value in enumerate(values)}
    order = dealt(weights, workers)
    assert sorted(order) == sorted(weights)
    loads = [sum(weights[shard] for shard in order[worker::workers]) for worker in range(workers)]
    full = [
        load for worker, load in enumerate(loads) if len(order[worker::workers]) == -(-len(order) // workers)
    ]
    # no two that hold equally many shards differ by more than the longest
    assert max(full) - min(full) <= max(values)


def test_even_by_eye() -> None:
    """Sixteen shards that in their own order would be dealt 68 to 124."""
    weights = {Shard("a", number, 16): 1 + number % 2 * 7 + number for number in range(16)}
    order = dealt(weights, 2)
    loads = [sum(weights[shard] for shard in order[worker::2]) for worker in range(2)]
    assert sum(loads) == 192
    assert abs(loads[0] - loads[1]) <= 2


def test_weights_are_the_clips_of_the_shards_plan(tmp_path: Path) -> None:
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
            inside = list(manifest.clips(split=shard.split, lowest=shard.lowest, below=shard.below))
            assert all(shard.lowest <= clip_hash(clip.clip_id) < shard.below <= HASH_SPACE for clip in inside)
            assert weight == sum(LEAST_US + length(clip) for clip in inside)


def length(clip: Clip) -> int:
    if clip.probe_error is not None:
        return 0
    end = clip.end_us if clip.end_us is not None else clip.duration_us
    return UNKNOWN_US if end is None else max(0, end - (clip.start_us or 0))
