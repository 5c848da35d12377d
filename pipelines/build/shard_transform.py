"""Beam transform of a column build: wiring only."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.metrics import Metrics

from reelmill.datasets.column import Shard
from reelmill.pipelines.build.job import BuildJob
from reelmill.pipelines.build.shard import build_shard
from reelmill.pipelines.execution.progress import ProgressReporter


@dataclass
class BuildShards(beam.PTransform):  # type: ignore[misc] # Beam ships no types
    """Build all shards of a column. The results are files; only counters pass through the graph."""

    job: BuildJob
    shards: Sequence[Shard]
    progress: str | None
    """Address of the main process's progress socket."""

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Apply to a pipeline; returns the counters of each shard."""
        return (
            pipeline
            # Without the second reshuffle in Create the local runner distributes the shards in the order given.
            | "Shards" >> beam.Create(list(self.shards), reshuffle=False)
            | "Reshuffle" >> beam.Reshuffle()
            | "Build" >> beam.ParDo(_BuildShard(self.job, self.progress))
        )


class _BuildShard(beam.DoFn):  # type: ignore[misc]
    def __init__(self, job: BuildJob, progress: str | None) -> None:
        self.job = job
        self.progress = progress

    def setup(self) -> None:
        self.maker = self.job.recipe.maker()
        self.reporter = ProgressReporter(self.progress)

    def process(self, shard: Shard) -> Iterator[Counter[str]]:
        counters = build_shard(self.job, shard, maker=self.maker, on_progress=self.reporter.add)
        self.reporter.add(shards=1)
        self.reporter.flush()
        for name, value in counters.items():
            Metrics.counter("reelmill", name).inc(value)
        yield counters

    def teardown(self) -> None:
        self.maker.close()
        self.reporter.close()
