"""Load balancing: an order of the shards in which all local workers get about the same amount of work.

Beam's local runner distributes its input to the workers round-robin, once, before the work begins. Shards are ranges of
hashes, so their sizes vary: with 16 shards of 4 clips each, one of two workers gets 10 % more than the other by
chance, and the other waits for it at the end.
"""

from collections.abc import Mapping, Sequence

from reelmill.datasets.column import Shard
from reelmill.datasets.manifest import HASH_SPACE, Manifest

DEFAULT_DURATION_US = 10_000_000
"""Assumed duration of a clip whose container header has none."""
CLIP_OVERHEAD_US = 500_000
"""Fixed cost of a clip, in microseconds of video that take as long to process."""


def shard_weights(manifest: Manifest, shard_counts: Mapping[str, int]) -> dict[Shard, int]:
    """Estimate the work of each shard, in microseconds of video according to the container headers.

    Args:
        manifest: the clips.
        shard_counts: number of shards of each split.
    """
    weights = {
        Shard(split, number, count): 0 for split, count in shard_counts.items() for number in range(count)
    }
    for table in manifest.tables(["hash", "split", "start_us", "end_us", "duration_us", "probe_error"]):
        for row in table.to_pylist():
            count = shard_counts[row["split"]]
            end = row["end_us"] if row["end_us"] is not None else row["duration_us"]
            length = DEFAULT_DURATION_US if end is None else max(0, end - (row["start_us"] or 0))
            shard = Shard(row["split"], row["hash"] * count // HASH_SPACE, count)
            weights[shard] += CLIP_OVERHEAD_US + (length if row["probe_error"] is None else 0)
    return weights


def balance_shards(weights: Mapping[Shard, int], workers: int) -> Sequence[Shard]:
    """Order the shards so that round-robin distribution gives each of ``workers`` about the same weight.

    Assigns the heaviest shards first, each to the worker with the least weight so far (Graham, Bounds on
    Multiprocessing Timing Anomalies, 1969).

    >>> balance_shards({Shard("a", number, 4): weight for number, weight in enumerate([1, 5, 2, 4])}, 2)
    [Shard(split='a', number=1, count=4), Shard(split='a', number=3, count=4), \
Shard(split='a', number=0, count=4), Shard(split='a', number=2, count=4)]
    """
    # Round-robin fixes how many shards each worker gets: a worker that has them all gets no more.
    capacity = [len(range(worker, len(weights), workers)) for worker in range(workers)]
    assigned: list[list[Shard]] = [[] for _ in range(workers)]
    loads = [0] * workers
    for shard in sorted(weights, key=lambda shard: (-weights[shard], shard)):
        free = (worker for worker in range(workers) if len(assigned[worker]) < capacity[worker])
        worker = min(free, key=lambda worker: (loads[worker], worker))
        assigned[worker].append(shard)
        loads[worker] += weights[shard]
    return [assigned[position % workers][position // workers] for position in range(len(weights))]
