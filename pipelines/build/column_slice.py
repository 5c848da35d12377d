"""Column slice: index rows, ledger rows and records of one shard's clips in a finished column."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reelmill.datasets import storage
from reelmill.datasets.column import INDEX, LEDGER, Column
from reelmill.datasets.column_reader import ColumnReader
from reelmill.datasets.errors import CorruptRecordError, DatasetError
from reelmill.datasets.manifest import Clip
from reelmill.features.recipe import ClipError, Payload, Request

RETRYABLE_REASONS = frozenset(
    {"missing", "empty", "unreadable", "timeout", "memory", "too_large", "probe_crashed"}
)
"""Reasons for quarantine that may not apply in another attempt: the next build tries such clips again."""


class ColumnSlice(ColumnReader):
    """Reader of some clips of a finished column, with their index and ledger rows.

    Args:
        dataset: path or URL of the dataset.
        name: name of the column.
        clip_ids: the clips; those that the column does not have are left out.

    Raises:
        DatasetError: there is no such finished column.
        FileNotFoundError: its index or its ledger is missing.
    """

    def __init__(self, dataset: str, name: str, clip_ids: list[str]) -> None:
        super().__init__(Column(dataset, name))
        self.index = _rows_by_clip(storage.join(dataset, name, INDEX), clip_ids)
        self.ledger = _rows_by_clip(storage.join(dataset, name, LEDGER), clip_ids)

    def stored(self, clip_id: str, fingerprint: str) -> "StoredClip | None":
        """Return the stored outcome of a clip; None if there is none, it is outdated, or a retry may succeed."""
        index_row, ledger_row = self.index.get(clip_id), self.ledger.get(clip_id)
        if ledger_row is None or (index_row or ledger_row)["fingerprint"] != fingerprint:
            return None
        failed = ledger_row["outcome"] == "quarantined" and ledger_row["reason"] not in RETRYABLE_REASONS
        return StoredClip(self, index_row, ledger_row) if index_row or failed else None


@dataclass(frozen=True, slots=True)
class StoredClip:
    """Outcome of one clip in an earlier build."""

    column: ColumnSlice
    index_row: dict[str, Any] | None
    """None for a quarantined clip."""
    ledger_row: dict[str, Any]

    def outcome(self) -> Payload | ClipError | None:
        """Return the clip's payload, or the error that put it in quarantine; None if its record is damaged."""
        if self.index_row is None:
            return ClipError(self.ledger_row["reason"], self.ledger_row["detail"])
        try:
            record = self.column.read(self.index_row)
        except CorruptRecordError:
            return None
        return Payload(
            data=record[self.index_row["head_size"] :],
            steps=self.index_row["steps"],
            decode_errors=self.ledger_row["decode_errors"],
            detail=self.ledger_row["detail"],
            figures=self.index_row,  # has a field for each figure
        )


def _rows_by_clip(path: str, clip_ids: list[str]) -> dict[str, dict[str, Any]]:
    """Read the rows of some clips from an index or ledger."""
    in_slice = pc.field("clip_id").isin(pa.array(clip_ids, pa.string()))
    with storage.open_read(path) as file:
        # Without threads and buffering ahead, only a few row groups of a large table are in memory at a time.
        table = pq.read_table(file, filters=in_slice, use_threads=False, pre_buffer=False)
    return {row["clip_id"]: row for row in table.to_pylist()}


def missing_source(clip_id: str, sources: Mapping[str, ColumnSlice]) -> str | None:
    """Return the first source column without a record of a clip, with the reason; None if all have one.

    Raises:
        DatasetError: a column was built from a manifest without the clip.
    """
    for name, column in sources.items():
        if clip_id not in column.index:
            if clip_id not in column.ledger:
                raise DatasetError(
                    f"column {name!r} has no entry for clip {clip_id!r}: it was built from another manifest; "
                    f"build {name!r} again first"
                )
            return f"{name}: {column.ledger[clip_id]['reason']}"
    return None


def request_clip(clip: Clip, sources: Mapping[str, ColumnSlice]) -> Request:
    """Return a clip with its record in each source column. Raises DatasetError if a record is damaged."""
    records = {}
    for name, column in sources.items():
        try:
            records[name] = column.read(column.index[clip.clip_id])
        except CorruptRecordError as error:
            raise DatasetError(
                f"column {name!r} is damaged at clip {clip.clip_id!r} ({error}): build {name!r} again"
            ) from None
    return Request(clip, records)
