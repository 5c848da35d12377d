"""Chunks of a scan: list a collection in chunks, probe the videos of one chunk, merge all into the manifest's order."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice, pairwise
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reelmill.datasets import storage
from reelmill.datasets.collections.base import Collection
from reelmill.datasets.errors import DatasetError
from reelmill.datasets.manifest import HASH_SPACE, Clip, Probe, to_table
from reelmill.features.identity import content_identity, stat_identity
from reelmill.features.video.probe_process import Prober

CHUNK_CLIPS = 256
"""Number of clips that a worker probes at a time."""
MERGE_ROWS = 50_000
"""Approximate number of rows in memory while the manifest is sorted."""
Identity = Literal["content", "stat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanJob:
    """What all chunks of one scan have in common. Pickled to the workers."""

    raw: str
    """Folder or URL of the collection."""
    folder: str
    """Folder of the temporary files."""
    label_index: dict[str, int]
    """Index of each class name."""
    identity: Identity
    window_us: int | None
    """Longest duration of a clip; None: unlimited."""
    probe_timeout_s: float

    def entries_path(self, chunk: int) -> str:
        """Return the path of a chunk's entries, in JSON."""
        return storage.join(self.folder, f"chunk-{chunk:06d}.json")

    def rows_path(self, chunk: int) -> str:
        """Return the path of a chunk's rows of the manifest, in Parquet."""
        return storage.join(self.folder, f"part-{chunk:06d}.parquet")


def write_chunks(job: ScanJob, collection: Collection) -> tuple[int, int]:
    """Write the entries of a collection in chunks. Return the number of entries and of chunks.

    Raises:
        DatasetError: a clip has a label that the collection does not list.
    """
    entries = iter(collection.entries())
    clips = chunks = 0
    while chunk := list(islice(entries, CHUNK_CLIPS)):
        for entry in chunk:
            for label in entry.labels:
                if label not in job.label_index:
                    raise DatasetError(
                        f"clip {entry.clip_id!r} has label {label!r}, which is not among the collection's labels()"
                    )
        storage.write_bytes(job.entries_path(chunks), json.dumps([asdict(entry) for entry in chunk]).encode())
        clips += len(chunk)
        chunks += 1
    return clips, chunks


def probe_chunk(job: ScanJob, chunk: int, *, prober: Prober, on_clip: Callable[[], None]) -> int:
    """Probe the videos of one chunk and write its rows of the manifest. Return the number of entries."""
    entries = json.loads(storage.read_bytes(job.entries_path(chunk)))
    probed: dict[str, dict[str, Any]] = {}
    clips: list[Clip] = []
    for entry in entries:
        video = entry["video"]
        if video not in probed:
            probed[video] = probe_video(storage.resolve(job.raw, video), identity=job.identity, prober=prober)
        label_index = [job.label_index[label] for label in entry["labels"]]
        clip = Clip(**entry, label_index=label_index, **probed[video])
        clips.extend(split_into_windows(clip, window_us=job.window_us))
        on_clip()
    with storage.open_atomic(job.rows_path(chunk)) as file:
        pq.write_table(to_table(clips), file)
    return len(entries)


def probe_video(path: str, *, identity: Identity, prober: Prober) -> dict[str, Any]:
    """Return the fields of the manifest that describe a video: its identity, its size and the probe's findings.

    Problems with the file are returned as ``probe_error`` and ``probe_detail``, not raised.
    """
    try:
        fingerprint, size = content_identity(path) if identity == "content" else stat_identity(path)
    except FileNotFoundError:
        return {"probe_error": "missing", "probe_detail": "there is no such file"}
    except OSError as error:
        return {"probe_error": "unreadable", "probe_detail": error.strerror or type(error).__name__}
    if size == 0:
        probe = Probe(probe_error="empty", probe_detail="the file has no bytes")
    else:
        with storage.local_file(path) as local_path:
            probe = prober.probe(local_path)
    return {"identity": fingerprint, "file_bytes": size, **asdict(probe)}


def split_into_windows(clip: Clip, *, window_us: int | None) -> Iterator[Clip]:
    """Split a clip into consecutive windows; yield a clip that fits into one window unchanged.

    The first window has the start of the clip and the last one its end, even if they are open, so that no frame is lost
    if the header's times are wrong.
    """
    start = clip.start_us if clip.start_us is not None else clip.start_time_us or 0
    end = clip.end_us if clip.end_us is not None else (clip.start_time_us or 0) + (clip.duration_us or 0)
    if window_us is None or clip.probe_error is not None or end - start <= window_us:
        yield clip
        return
    times = [clip.start_us, *range(start + window_us, end, window_us), clip.end_us]
    for number, (start_us, end_us) in enumerate(pairwise(times)):
        clip_id = f"{clip.clip_id}@w{number:04d}"
        yield replace(clip, clip_id=clip_id, start_us=start_us, end_us=end_us)


def merge_chunks(job: ScanJob, *, chunks: int, clips: int) -> Iterator[pa.Table]:
    """Yield the rows of all chunks in the manifest's order, one range of hashes at a time.

    Each range reads every chunk again: memory stays bounded, whatever the size of the collection.
    """
    ranges = -(-clips // MERGE_ROWS)
    for number in range(ranges):
        first, last = HASH_SPACE * number // ranges, HASH_SPACE * (number + 1) // ranges - 1
        # Scalars of type uint64: a plain integer would become an int64.
        in_range = (pc.field("hash") >= pa.scalar(first, pa.uint64())) & (
            pc.field("hash") <= pa.scalar(last, pa.uint64())
        )
        tables = []
        for chunk in range(chunks):
            with storage.open_read(job.rows_path(chunk)) as file:
                tables.append(pq.read_table(file, filters=in_range))
        yield pa.concat_tables(tables).sort_by([("hash", "ascending"), ("clip_id", "ascending")])
