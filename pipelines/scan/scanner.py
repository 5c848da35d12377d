"""Scanning: what a collection lists, probed in parallel, becomes the manifest.

Everything goes through files in chunks, so that neither the main process nor Beam ever holds the collection.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import pyarrow as pa
from pydantic import Field

from reelmill.datasets import storage
from reelmill.datasets.collections.registry import open_collection
from reelmill.datasets.errors import UsageError
from reelmill.datasets.manifest import FILE_NAME, ManifestInfo, write_tables
from reelmill.pipelines.execution.progress import ProgressMonitor
from reelmill.pipelines.execution.runner import run_graph
from reelmill.pipelines.params import Section
from reelmill.pipelines.scan.chunks import Identity, ScanJob, sorted_tables, write_chunks


class ScanSection(Section):
    """Section ``scan`` of params.yaml."""

    raw: str
    """Folder or URL of the collection"""
    collection: str = "folder"
    """How it is laid out: folder, table, ucf101, hmdb51, or package.module:Class of your own"""
    options: dict[str, Any] = Field(default_factory=dict)
    """What that layout wants to know, as {fold: 1}"""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] | None = None
    """Name of the dataset, which its shards' names begin with; null takes the collection's"""
    identity: Identity = "content"
    """How a changed video is noticed: content hashes its bytes, stat looks at size and time"""
    window_s: Annotated[float, Field(gt=0)] | None = None
    """Cut clips that are longer into windows of so many seconds; null leaves them whole"""
    probe_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """Seconds that probing one video may take"""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Local worker processes; null is one for each core"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanResult:
    """What a scan came to; depends on the collection alone."""

    dataset: str
    clips: int
    videos: int
    classes: int
    splits: dict[str, int]
    """Clips by split."""
    probe_errors: dict[str, int]
    """Clips by the reason for which probing found no video."""


def scan(dataset: str, section: ScanSection, *, beam_options: Sequence[str] = ()) -> ScanResult:
    """List and probe a collection and write its manifest.

    Args:
        dataset: path or URL of the dataset's folder.
        section: what to scan and how.
        beam_options: options for Beam, which may name another runner.

    Raises:
        UsageError: the collection is not there, lists nothing, or an option is wrong.
        DatasetError: two clips have one clip_id, or a clip has a label that the collection does not list.
    """
    collection = open_collection(section.collection, section.raw, section.options)
    labels = collection.labels()
    job = ScanJob(
        raw=section.raw,
        folder=storage.join(dataset, ".scan.build"),
        label_index={label: index for index, label in enumerate(labels)},
        identity=section.identity,
        window_us=None if section.window_s is None else round(section.window_s * 1_000_000),
        probe_timeout_s=section.probe_timeout_s,
    )
    info = ManifestInfo(dataset=section.name or collection.name, labels=labels, identity=section.identity)
    storage.remove_folder(job.folder)
    try:
        clips, chunks = write_chunks(job, collection)
        if not clips:
            raise UsageError(
                f"scan.raw = {section.raw!r}: the {section.collection} collection there has no clips"
            )
        with ProgressMonitor("scan", clips=clips, frames=False) as progress:
            _run(job, chunks, progress.address, section.workers, beam_options)
        tally = _RowCounter()
        rows = write_tables(
            storage.join(dataset, FILE_NAME), tally.counted(sorted_tables(job, chunks, clips)), info
        )
    finally:
        storage.remove_folder(job.folder)
    return ScanResult(
        dataset=info.dataset,
        clips=rows,
        videos=len(tally.videos),
        classes=len(labels),
        splits=dict(sorted(tally.splits.items())),
        probe_errors=dict(sorted(tally.errors.items())),
    )


def _run(
    job: ScanJob, chunks: int, progress: str, workers: int | None, beam_options: Sequence[str]
) -> dict[str, int]:
    def graph(pipeline: Any) -> None:
        from reelmill.pipelines.scan.probe_transform import ProbeChunks

        _ = pipeline | ProbeChunks(job=job, chunks=chunks, progress=progress)

    return run_graph(graph, beam_options=beam_options, workers=workers)


class _RowCounter:
    """Counts rows as they pass."""

    def __init__(self) -> None:
        self.splits: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.videos: set[int] = set()

    def counted(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        for table in tables:
            self.splits.update(table["split"].to_pylist())
            self.errors.update(error for error in table["probe_error"].to_pylist() if error)
            self.videos.update(hash(video) for video in table["video"].to_pylist())
            yield table
