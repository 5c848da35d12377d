"""The Beam graph of a scan: only wiring."""

from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.metrics import Metrics

from reelmill.features.video.probe_process import Prober
from reelmill.pipelines.execution.progress import ProgressReporter
from reelmill.pipelines.scan.chunks import ScanJob, probe_chunk


@dataclass
class ProbeChunks(beam.PTransform):  # type: ignore[misc]
    """Probe every chunk of a scan; the rows lie in storage, only counters pass through the graph."""

    job: ScanJob
    chunks: int
    progress: str | None
    """Address of the main process's progress socket."""

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Apply to a pipeline; gives the number of clips of each chunk."""
        return (
            pipeline
            | "Chunks" >> beam.Create(range(self.chunks))
            | "Spread" >> beam.Reshuffle()
            | "Probe" >> beam.ParDo(_ProbeChunk(self.job, self.progress))
        )


class _ProbeChunk(beam.DoFn):  # type: ignore[misc]
    def __init__(self, job: ScanJob, progress: str | None) -> None:
        self.job = job
        self.progress = progress

    def setup(self) -> None:
        self.prober = Prober(timeout_s=self.job.probe_timeout_s)
        self.sender = ProgressReporter(self.progress)

    def process(self, number: int) -> Iterator[int]:
        clips = probe_chunk(self.job, number, prober=self.prober, on_clip=lambda: self.sender.add(clips=1))
        self.sender.flush()
        Metrics.counter("reelmill", "clips_probed").inc(clips)
        yield clips

    def teardown(self) -> None:
        self.prober.close()
        self.sender.close()
