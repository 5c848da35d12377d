"""Beam transform of a scan: wiring only."""

from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.metrics import Metrics

from reelmill.features.video.probe_process import Prober
from reelmill.pipelines.execution.progress import ProgressReporter
from reelmill.pipelines.scan.chunks import ScanJob, probe_chunk


@dataclass
class ProbeChunks(beam.PTransform):  # type: ignore[misc] # Beam ships no types
    """Probe all chunks of a scan. The results are files; only counters pass through the graph."""

    job: ScanJob
    chunks: int
    """Number of chunks."""
    progress: str | None
    """Address of the main process's progress socket."""

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Apply to a pipeline; returns the number of clips of each chunk."""
        return (
            pipeline
            | "Chunks" >> beam.Create(range(self.chunks))
            | "Reshuffle" >> beam.Reshuffle()
            | "Probe" >> beam.ParDo(_ProbeChunk(self.job, self.progress))
        )


class _ProbeChunk(beam.DoFn):  # type: ignore[misc]
    def __init__(self, job: ScanJob, progress: str | None) -> None:
        self.job = job
        self.progress = progress

    def setup(self) -> None:
        self.prober = Prober(timeout_s=self.job.probe_timeout_s)
        self.reporter = ProgressReporter(self.progress)

    def process(self, chunk: int) -> Iterator[int]:
        clips = probe_chunk(self.job, chunk, prober=self.prober, on_clip=lambda: self.reporter.add(clips=1))
        self.reporter.flush()
        Metrics.counter("reelmill", "clips_probed").inc(clips)
        yield clips

    def teardown(self) -> None:
        self.prober.close()
        self.reporter.close()
