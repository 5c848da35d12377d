"""The order in which shards are handed out, so that local workers have equal amounts to do.

Beam's local runner deals what it is given to its workers in turn, once, as cards are dealt. Shards are ranges of
hashes: among 16 of 4 clips each, one worker of two gets 10 % more than the other by chance, and then the other waits.
"""

from collections.abc import Mapping, Sequence

from reelmill.datasets.column import Shard
from reelmill.datasets.manifest import HASH_SPACE, Manifest

UNKNOWN_US = 10_000_000
"""Duration that a clip is taken to have where its header tells none."""
LEAST_US = 500_000
"""What a clip costs besides its frames, as so much video."""


def shard_weights(manifest: Manifest, counts: Mapping[str, int]) -> dict[Shard, int]:
    """Microseconds of video in each shard, by what the headers tell: roughly the work that it is.

    Args:
        manifest: the clips.
        counts: number of shards of each split.
    """
    weights = {Shard(split, number, count): 0 for split, count in counts.items() for number in range(count)}
    for table in manifest.tables(["hash", "split", "start_us", "end_us", "duration_us", "probe_error"]):
        for row in table.to_pylist():
            count = counts[row["split"]]
            end = row["end_us"] if row["end_us"] is not None else row["duration_us"]
            length = UNKNOWN_US if end is None else max(0, end - (row["start_us"] or 0))
            shard = Shard(row["split"], row["hash"] * count // HASH_SPACE, count)
            weights[shard] += LEAST_US + (length if row["probe_error"] is None else 0)
    return weights


def dealt(weights: Mapping[Shard, int], workers: int) -> Sequence[Shard]:
    """All shards, in an order that gives each of ``workers`` about the same weight when they are dealt in turn.

    The longest go first, each to the worker that has the least so far (Graham, Bounds on Multiprocessing Timing
    Anomalies, 1969).

    >>> dealt({Shard("a", number, 4): weight for number, weight in enumerate([1, 5, 2, 4])}, 2)
    [Shard(split='a', number=1, count=4), Shard(split='a', number=3, count=4), \
Shard(split='a', number=0, count=4), Shard(split='a', number=2, count=4)]
    """
    room = [len(range(worker, len(weights), workers)) for worker in range(workers)]
    hands: list[list[Shard]] = [[] for _ in range(workers)]
    loads = [0] * workers
    for shard in sorted(weights, key=lambda shard: (-weights[shard], shard)):
        worker = min((w for w in range(workers) if len(hands[w]) < room[w]), key=lambda w: (loads[w], w))
        hands[worker].append(shard)
        loads[worker] += weights[shard]
    return [hands[place % workers][place // workers] for place in range(len(weights))]
