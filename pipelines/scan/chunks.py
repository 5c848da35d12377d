"""Chunks of a scan: probing the videos of one, and merging all into the manifest's order."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reelmill.datasets import storage
from reelmill.datasets.collections.base import Collection, Entry
from reelmill.datasets.errors import DatasetError
from reelmill.datasets.manifest import HASH_SPACE, Clip, to_table
from reelmill.features.identity import content_identity, stat_identity
from reelmill.features.video.probe import Probe
from reelmill.features.video.probe_process import Prober

CHUNK_CLIPS = 256
"""Clips that one worker probes at a time."""
MERGE_ROWS = 50_000
"""Rows held at a time while the manifest is put in order."""
Identity = Literal["content", "stat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanJob:
    """What all chunks of one scan have in common. Pickled to the workers."""

    raw: str
    folder: str
    """Where chunks and parts lie."""
    label_index: dict[str, int]
    identity: Identity
    window_us: int | None
    probe_timeout_s: float


def write_chunks(job: ScanJob, collection: Collection) -> tuple[int, int]:
    """Write the entries of a collection as JSON files of CHUNK_CLIPS each; return the number of clips and of files.

    Raises:
        DatasetError: a clip has a label that the collection does not list.
    """
    entries = iter(collection.entries())
    clips = chunks = 0
    while chunk := list(islice(entries, CHUNK_CLIPS)):
        for entry in chunk:
            unknown = [label for label in entry.labels if label not in job.label_index]
            if unknown:
                raise DatasetError(
                    f"clip {entry.clip_id!r} has label {unknown[0]!r}, which is not among the collection's labels()"
                )
        content = json.dumps([asdict(entry) for entry in chunk])
        storage.write_bytes(_chunk_path(job, chunks), content.encode())
        clips += len(chunk)
        chunks += 1
    return clips, chunks


def _chunk_path(job: ScanJob, number: int) -> str:
    return storage.join(job.folder, f"chunk-{number:06d}.json")


def _part_path(job: ScanJob, number: int) -> str:
    return storage.join(job.folder, f"part-{number:06d}.parquet")


def probe_chunk(job: ScanJob, number: int, *, prober: Prober, on_clip: Callable[[], None]) -> int:
    """Probe the videos of one chunk and write its rows. Returns the number of entries."""
    entries = [_entry(row) for row in json.loads(storage.read_bytes(_chunk_path(job, number)))]
    facts: dict[str, dict[str, Any]] = {}
    clips: list[Clip] = []
    for entry in entries:
        if entry.video not in facts:
            path = storage.below(job.raw, entry.video)
            facts[entry.video] = probe_video(path, identity=job.identity, prober=prober)
        clip = Clip(
            **{**asdict(entry), "labels": list(entry.labels)},
            label_index=[job.label_index[label] for label in entry.labels],
            **facts[entry.video],
        )
        clips.extend(split_into_windows(clip, window_us=job.window_us))
        on_clip()
    with storage.replacing(_part_path(job, number)) as file:
        pq.write_table(to_table(clips), file)
    return len(entries)


def _entry(row: dict[str, Any]) -> Entry:
    return Entry(**{**row, "labels": tuple(row["labels"])})


def probe_video(path: str, *, identity: Identity, prober: Prober) -> dict[str, Any]:
    """What the manifest says about a video: its identity and what probing found.

    Never raises for what is or is not at ``path``; ``probe_error`` then tells.
    """
    try:
        known, size = content_identity(path) if identity == "content" else stat_identity(path)
    except FileNotFoundError:
        return {"probe_error": "missing", "probe_detail": "there is no such file"}
    except OSError as error:
        return {"probe_error": "unreadable", "probe_detail": error.strerror or type(error).__name__}
    if size == 0:
        found = Probe(probe_error="empty", probe_detail="the file has no bytes")
    else:
        with storage.local_file(path) as local:
            found = prober.probe(local)
    return {"identity": known, "file_bytes": size, **asdict(found)}


def split_into_windows(clip: Clip, *, window_us: int | None) -> Iterator[Clip]:
    """Cut a clip into consecutive windows; a clip that fits into one stays as it is.

    The first window begins where the clip does and the last ends where it does, so that nothing is lost when
    the header's times are wrong.
    """
    begin = clip.start_us if clip.start_us is not None else clip.start_time_us or 0
    end = clip.end_us if clip.end_us is not None else (clip.start_time_us or 0) + (clip.duration_us or 0)
    if window_us is None or clip.probe_error is not None or end - begin <= window_us:
        yield clip
        return
    count = -(-(end - begin) // window_us)
    for number in range(count):
        yield replace(
            clip,
            clip_id=f"{clip.clip_id}@w{number:04d}",
            start_us=clip.start_us if number == 0 else begin + number * window_us,
            end_us=clip.end_us if number == count - 1 else begin + (number + 1) * window_us,
        )


def sorted_tables(job: ScanJob, chunks: int, clips: int) -> Iterator[pa.Table]:
    """All rows in manifest order, one range of hashes at a time."""
    ranges = -(-clips // MERGE_ROWS)
    for number in range(ranges):
        lowest, below = HASH_SPACE * number // ranges, HASH_SPACE * (number + 1) // ranges
        tables = []
        for chunk in range(chunks):
            with storage.open_read(_part_path(job, chunk)) as file:
                table = pq.read_table(file)
            place = table["hash"]
            inside = pc.and_(
                pc.greater_equal(place, pa.scalar(lowest, pa.uint64())),
                pc.less_equal(place, pa.scalar(below - 1, pa.uint64())),
            )
            tables.append(table.filter(inside))
        yield pa.concat_tables(tables).sort_by([("hash", "ascending"), ("clip_id", "ascending")])
