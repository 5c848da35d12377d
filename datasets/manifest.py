"""The manifest: one row per clip, in the order that shards are cut from.

Rows are sorted by a stable hash of their ``clip_id``. A shard is a range of that hash, so it is one
contiguous slice of the manifest: any worker reads its own slice and nobody holds the whole.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reelmill.datasets import storage
from reelmill.datasets.errors import DatasetError, one_line
from reelmill.datasets.parquet import parquet_writer

FILE_NAME = "manifest.parquet"
SCHEMA_VERSION = 1
ROW_GROUP_ROWS = 2048
"""Rows a worker has to read at least to find its slice; about 0.5 MB."""

HASH_SPACE = 1 << 64


def clip_hash(clip_id: str) -> int:
    """Place of a clip on the ring that shards are cut from, 0 .. 2**64 - 1.

    >>> clip_hash("a") == clip_hash("a") != clip_hash("b")
    True
    """
    return int.from_bytes(hashlib.blake2b(clip_id.encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One labelled time range of one video: a row of the manifest."""

    clip_id: str
    """Unique in the manifest and stable between scans."""
    video: str
    """Path below the collection's root, with ``/``; or a URL."""
    media_id: str
    """Names the video; clips cut from one video share it."""
    split: str
    """``train``, ``val``, ``test`` or another word of ``[a-z0-9_]``."""
    labels: list[str] = field(default_factory=list)
    """Class names; none for an unlabelled clip, several for a multi-label one."""
    label_index: list[int] = field(default_factory=list)
    """Place of each of ``labels`` in the manifest's class list, from 0."""
    start_us: int | None = None
    """First presentation time that belongs to the clip, on the video's own timeline; None: its beginning."""
    end_us: int | None = None
    """First presentation time that no longer belongs to it; None: the video's end."""

    identity: str | None = None
    """What the source's content is known by: ``sha256:...`` of its bytes, or ``stat:...``; None: no file."""
    file_bytes: int | None = None
    """Length of the video file."""
    probe_error: str | None = None
    """Why probing found no video: one of :data:`reelmill.datasets.column.REASONS`; None: it did."""
    probe_detail: str | None = None
    """What the prober said to ``probe_error``."""
    container: str | None = None
    """Name of ffmpeg's demuxer, as ``avi`` or ``mov,mp4,m4a,3gp,3g2,mj2``."""
    codec: str | None = None
    """Name of ffmpeg's decoder family, as ``h264``."""
    pix_fmt: str | None = None
    """Pixel format of the decoded frames, as ``yuv420p``."""
    coded_width: int | None = None
    """Width of the decoded picture in pixels, before rotation and aspect."""
    coded_height: int | None = None
    """Height of the decoded picture in pixels, before rotation and aspect."""
    sar: str | None = None
    """Sample aspect ratio ``num:den``; ``1:1`` where the file names none."""
    rotation: int | None = None
    """Degrees to turn the picture clockwise for display: 0, 90, 180 or 270."""
    width: int | None = None
    """Width as displayed: rotated and with square pixels."""
    height: int | None = None
    """Height as displayed: rotated and with square pixels."""
    interlaced: bool | None = None
    """Whether one of the first frames is stored as two fields."""
    fps_average: float | None = None
    """Frames per second as the container's average tells (a hint)."""
    fps_nominal: float | None = None
    """Frames per second as the container's lowest common rate tells (a hint)."""
    variable_rate: bool | None = None
    """Whether packet times of the stream are unevenly spaced."""
    start_time_us: int | None = None
    """Presentation time at which the container says that it begins (a hint)."""
    duration_us: int | None = None
    """Duration as the header tells (a hint); None where it does not."""
    header_frames: int | None = None
    """Frame count as the header tells (a hint); None where it does not."""
    audio_codec: str | None = None
    """Decoder family of the first audio stream; None: no audio."""
    audio_rate: int | None = None
    """Samples per second of the first audio stream."""
    audio_channels: int | None = None
    """Channels of the first audio stream."""


_TEXT, _INT, _FLOAT, _BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_ARROW_TYPES: dict[str, pa.DataType] = {
    str(str): _TEXT,
    str(str | None): _TEXT,
    str(int | None): _INT,
    str(float | None): _FLOAT,
    str(bool | None): _BOOL,
    str(list[str]): pa.list_(_TEXT),
    str(list[int]): pa.list_(_INT),
}
SCHEMA: pa.Schema = pa.schema(
    [pa.field("hash", pa.uint64(), nullable=False)]
    + [pa.field(f.name, _ARROW_TYPES[str(f.type)], nullable="None" in str(f.type)) for f in fields(Clip)]
)


@dataclass(frozen=True, slots=True)
class ManifestInfo:
    """What holds for all rows of a manifest."""

    dataset: str
    """Name of the dataset; shard names begin with it."""
    labels: list[str]
    """Class names; a label's index is its place here."""
    identity: str = "content"
    """How sources are known: ``content`` (hash of the bytes) or ``stat`` (size and modification time)."""
    schema_version: int = SCHEMA_VERSION


def to_table(clips: Iterable[Clip]) -> pa.Table:
    """Rows in manifest order: by hash, then by clip_id."""
    rows = [{"hash": clip_hash(c.clip_id), **asdict(c)} for c in clips]
    rows.sort(key=lambda row: (row["hash"], row["clip_id"]))
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def write_tables(path: str, tables: Iterable[pa.Table], info: ManifestInfo) -> int:
    """Write a manifest from tables that are sorted and follow one another; the file appears when complete.

    Returns:
        The number of rows.

    Raises:
        DatasetError: a clip_id occurs twice, or the tables are out of order.
    """
    metadata = {"reelmill": json.dumps(asdict(info), ensure_ascii=False, sort_keys=True)}
    rows = 0
    last: tuple[int, str] = (-1, "")
    schema = SCHEMA.with_metadata(metadata)
    with (
        storage.open_atomic(path) as file,
        parquet_writer(file, schema) as writer,
    ):
        for table in tables:
            for key in zip(table["hash"].to_pylist(), table["clip_id"].to_pylist(), strict=True):
                if key == last:
                    raise DatasetError(f"clip_id {key[1]!r} occurs more than once in the collection")
                if key < last:
                    raise DatasetError(f"manifest rows out of order at clip_id {key[1]!r}")
                last = key
            rows += table.num_rows
            writer.write_table(table.cast(SCHEMA), row_group_size=ROW_GROUP_ROWS)
    return rows


class Manifest:
    """A manifest on disk, read a slice at a time.

    Raises:
        DatasetError: there is no manifest at ``path``, or it is none of ours.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._file = storage.open_read(path)
        except FileNotFoundError:
            raise DatasetError(f"no manifest at {path!r}: run `reelmill scan` first") from None
        try:
            self._parquet, self.info = self._open()
        except BaseException:
            self._file.close()
            raise

    def _open(self) -> tuple[pq.ParquetFile, ManifestInfo]:
        try:
            parquet = pq.ParquetFile(self._file, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise DatasetError(f"{self.path!r} is not a readable Parquet file: {one_line(error)}") from None
        schema = parquet.schema_arrow
        try:
            info = ManifestInfo(**json.loads((schema.metadata or {})[b"reelmill"]))
        except (KeyError, ValueError, TypeError):
            raise DatasetError(f"{self.path!r} is not a Reelmill manifest") from None
        if info.schema_version != SCHEMA_VERSION:
            raise DatasetError(
                f"{self.path!r} has manifest schema {info.schema_version}, "
                f"this Reelmill reads {SCHEMA_VERSION}: run `reelmill scan` again"
            )
        if schema.names != SCHEMA.names:
            raise DatasetError(f"{self.path!r} lacks columns of a manifest: run `reelmill scan` again")
        return parquet, info

    def __enter__(self) -> "Manifest":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def num_clips(self) -> int:
        """Number of rows."""
        return int(self._parquet.metadata.num_rows)

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """All rows, one row group at a time."""
        for group in range(self._parquet.num_row_groups):
            yield self._read(group, columns=list(columns) if columns else None)

    def _read(self, group: int, columns: list[str] | None = None) -> pa.Table:
        try:
            table = self._parquet.read_row_group(group, columns=columns)
            table.validate(full=True)
            return table
        except (pa.ArrowException, OSError) as error:
            raise DatasetError(f"{self.path!r} is damaged: {one_line(error)}") from None

    def clips(
        self, *, split: str | None = None, hash_start: int = 0, hash_end: int = HASH_SPACE
    ) -> Iterator[Clip]:
        """Clips whose hash lies in [hash_start, hash_end), in order; reads only the row groups that hold them."""
        for group in range(self._parquet.num_row_groups):
            statistics = self._parquet.metadata.row_group(group).column(0).statistics
            known = statistics is not None and statistics.has_min_max
            if known and (statistics.max < hash_start or statistics.min >= hash_end):
                continue
            for row in self._read(group).to_pylist():
                if hash_start <= row["hash"] < hash_end and split in (None, row["split"]):
                    yield clip_from_row(row)


def clip_from_row(row: dict[str, Any]) -> Clip:
    """A clip from a row of a manifest table, which may carry the hash besides."""
    return Clip(**{name: value for name, value in row.items() if name != "hash"})
