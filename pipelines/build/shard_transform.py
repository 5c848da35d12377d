"""The Beam graph of a column build: only wiring."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.metrics import Metrics

from reelmill.datasets.column import Shard
from reelmill.features.recipe import Maker
from reelmill.pipelines.build.shard import BuildJob, ShardCounters, build_shard
from reelmill.pipelines.execution.progress import ProgressReporter


@dataclass
class BuildShards(beam.PTransform):  # type: ignore[misc] # Beam ships no types
    """Build every shard of a column; the result lies in storage, only counters pass through the graph."""

    job: BuildJob
    shards: Sequence[Shard]
    progress: str | None
    """Address of the main process's progress socket."""

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Apply to a pipeline; gives a tally for each shard."""
        return (
            pipeline
            # one reshuffle, not Create's besides: the local runner then deals the shards in this order
            | "Shards" >> beam.Create(list(self.shards), reshuffle=False)
            | "Spread" >> beam.Reshuffle()
            | "Build" >> beam.ParDo(_BuildShard(self.job, self.progress))
        )


class _BuildShard(beam.DoFn):  # type: ignore[misc]
    def __init__(self, job: BuildJob, progress: str | None) -> None:
        self.job = job
        self.progress = progress
        self.maker: Maker | None = None

    def setup(self) -> None:
        self.maker = self.job.recipe.maker()
        self.sender = ProgressReporter(self.progress)

    def process(self, shard: Shard) -> Iterator[ShardCounters]:
        assert self.maker is not None
        tally = build_shard(
            self.job, shard, maker=self.maker, on_clip=lambda steps: self.sender.add(clips=1, frames=steps)
        )
        self.sender.add(shards=1)
        self.sender.flush()
        for name in ShardCounters.__slots__:
            Metrics.counter("reelmill", name).inc(getattr(tally, name))
        yield tally

    def teardown(self) -> None:
        if self.maker is not None:
            self.maker.close()
            self.sender.close()
