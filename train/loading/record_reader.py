"""Where the records of a split lie in its columns, and reading them inside a tf.data graph."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from numpy.typing import NDArray

from reelmill.datasets import storage
from reelmill.datasets.column import Column, Shard, column_names
from reelmill.datasets.errors import DatasetError, UsageError, one_line
from reelmill.datasets.manifest import Manifest
from reelmill.datasets.records.sequence_example import SequenceExample, parse
from reelmill.datasets.records.tfrecord import read_record_at
from reelmill.train.loading.graph_checks import asserted
from reelmill.train.loading.service_server import FORGOTTEN
from reelmill.train.options import Labels

LabelMode = Literal[Labels, "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Records of one split of one column, in the order of its index unless they were joined."""

    column: str
    """Name of the column."""
    files: list[str]
    """Paths of the split's shards."""
    clip_ids: Any
    """Of each row: a pyarrow array of strings."""
    shard: NDArray[np.int32]
    """Each row's place in ``files``."""
    offset: NDArray[np.int64]
    """Where each row's record begins in its shard, in bytes."""
    size: NDArray[np.int64]
    """Of each row's record without framing, in bytes."""
    place: NDArray[np.int64]
    """Of each row's record among those of its shard, from 0."""
    longest: int
    """Most records in one shard."""

    def __len__(self) -> int:
        return len(self.offset)

    def record(self, row: int) -> SequenceExample:
        """A row's record, read without TensorFlow. Raises DatasetError."""
        with storage.open_read(self.files[int(self.shard[row])]) as file:
            return parse(read_record_at(file, int(self.offset[row]), size=int(self.size[row])))

    def take(self, rows: NDArray[np.int64]) -> "Records":
        """These rows, in this order."""
        return replace(
            self,
            clip_ids=self.clip_ids.take(pa.array(rows)),
            shard=self.shard[rows],
            offset=self.offset[rows],
            size=self.size[rows],
            place=self.place[rows],
        )

    def reader(self) -> Callable[[tf.Tensor], tf.data.Dataset]:
        """A graph function from a row to a dataset of its serialized record, checksum verified.

        Where the shard ends before the record begins, as one that was cut short, there is an empty text instead.
        """
        # tensors made here are captured; constants of the graph would be copied and serialised with it
        files, shard, offset = tf.constant(self.files), tf.constant(self.shard), tf.constant(self.offset)

        def read(row: tf.Tensor) -> tf.data.Dataset:
            variant = tf.raw_ops.TFRecordDatasetV2(
                filenames=[tf.gather(files, tf.gather(shard, row))],
                compression_type="",
                # unbuffered: the record arrives in one read of exactly its length
                buffer_size=tf.constant(0, tf.int64),
                byte_offsets=[tf.gather(offset, row)],
            )
            records = tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))
            return records.concatenate(tf.data.Dataset.from_tensor_slices([""])).take(1)

        return read


def read_rows(places: tf.data.Dataset, columns: Sequence[Records]) -> tf.data.Dataset:
    """The serialized records of each place, each read by itself.

    Args:
        places: dictionaries of scalars as :meth:`reelmill.train.loading.order.Order.batches` gives them.
        columns: where the records are.

    Returns:
        A dataset of pairs: epoch and place in it, int64 [2]; and a tuple of the record in each column.
    """
    readers = [records.reader() for records in columns]

    def read(place: dict[str, tf.Tensor]) -> tf.data.Dataset:
        when = tf.data.Dataset.from_tensor_slices([tf.stack([place["epoch"], place["place"]])])
        return tf.data.Dataset.zip((when, tuple(reader(place["row"]) for reader in readers)))

    # Datasets within a dataset: an operation that takes a record out of one (get_single_element) counts as having a
    # state, and under tf.config.experimental.enable_op_determinism one such in a graph switches off all of its
    # parallel calls and prefetching.
    return places.interleave(read, cycle_length=tf.data.AUTOTUNE, num_parallel_calls=tf.data.AUTOTUNE)


def there(record: tf.Tensor, *, column: str) -> tf.Tensor:
    """A serialized record as it is; an error where there is none, because its shard was cut short."""
    message = f"corrupted shard: one of column {column!r} ends before a record that its index names"
    return asserted(record, tf.strings.length(record) > 0, message)


def locate(dataset: str, column: str, *, split: str) -> Records:
    """Find the records of a split.

    Raises:
        UsageError: there is no such column or split.
        DatasetError: the column is damaged.
    """
    if column not in column_names(dataset):
        there = ", ".join(column_names(dataset)) or "none: run `reelmill frames` first"
        raise UsageError(f"no finished column {column!r} in {dataset!r}; there is {there}")
    opened = Column(dataset, column)
    shards = [s for s in opened.description.shard_list() if s.split == split]
    table: Any = opened.index()
    rows = table.filter(pc.equal(table["split"], pa.scalar(split)))
    if not rows.num_rows:
        there = ", ".join(pc.unique(table["split"]).to_pylist()) or "none"
        raise UsageError(f"no clips of split {split!r} in {opened.folder!r}; splits there: {there}")
    _check_shards(opened, shards, rows)
    return Records(
        column=column,
        files=[opened.shard_path(s) for s in shards],
        clip_ids=rows["clip_id"].combine_chunks(),
        shard=rows["shard"].to_numpy().astype(np.int32),
        offset=rows["offset"].to_numpy().astype(np.int64),
        size=rows["size"].to_numpy().astype(np.int64),
        place=rows["row"].to_numpy().astype(np.int64),
        longest=pc.max(rows["row"]).as_py() + 1,
    )


def _check_shards(column: Column, shards: Sequence[Shard], rows: Any) -> None:
    there = set(storage.list_names(column.folder))
    for number in pc.unique(rows["shard"]).to_pylist():
        if number >= len(shards):
            raise DatasetError(f"{column.folder}: the index names shard {number} of {len(shards)}")
        name = shards[number].file_name(column.description.dataset)
        if name not in there:
            raise DatasetError(f"{column.folder}: shard {name} is missing")


def join(columns: Sequence[Records], *, split: str) -> tuple[list[Records], dict[str, int]]:
    """Those clips that every column has, in the order of the first column's index.

    Returns:
        The records, row i of each being of the same clip; and for each column that lacks clips which another
        has, as because they are quarantined in it, how many.

    Raises:
        DatasetError: two columns are divided into different numbers of shards, or have no clip in common.
    """
    first = columns[0]
    for other in columns[1:]:
        if len(other.files) != len(first.files):
            raise DatasetError(
                f"columns {first.column!r} and {other.column!r} have {len(first.files)} and {len(other.files)} "
                f"shards of split {split!r}: build {other.column!r} again"
            )
    every = pc.unique(pa.chunked_array([c.clip_ids for c in columns]))
    lacking = {c.column: len(every) - len(c) for c in columns if len(c) < len(every)}
    if not lacking and all(c.clip_ids.equals(first.clip_ids) for c in columns):
        return list(columns), {}
    places: list[Any] = [pc.index_in(first.clip_ids, value_set=c.clip_ids) for c in columns]
    shared = np.logical_and.reduce([p.is_valid().to_numpy(zero_copy_only=False) for p in places])
    if not shared.any():
        names = ", ".join(c.column for c in columns)
        raise DatasetError(f"no clip of split {split!r} is in all of the columns {names}")
    rows = [p.fill_null(0).to_numpy().astype(np.int64)[shared] for p in places]
    return [c.take(r) for c, r in zip(columns, rows, strict=True)], lacking


def check_single_labels(manifest: Manifest, records: Records, split: str) -> None:
    """Raise UsageError where a clip among these records has no label, or several."""
    table: Any
    for table in manifest.tables(["clip_id", "split", "label_index"]):
        lengths: Any = pc.list_value_length(table["label_index"])
        inside: Any = pc.equal(table["split"], pa.scalar(split))
        odd = table.filter(pc.and_(inside, pc.not_equal(lengths, pa.scalar(1))))
        if not odd.num_rows:
            continue
        read = odd.filter(pc.is_in(odd["clip_id"], value_set=records.clip_ids))
        for row in read.slice(0, 1).to_pylist():
            raise UsageError(
                f"clip {row['clip_id']!r} has {len(row['label_index'])} labels where labels='single' needs one: "
                "pass labels='multi' or labels='none'"
            )


@contextmanager
def reading() -> Iterator[None]:
    """Word TensorFlow's errors about the data as a DatasetError of one line."""
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.NotFoundError) as error:
        message = _message(error)
        if FORGOTTEN in message:
            message = "the tf.data service lost a worker or was started anew: see that all of it runs, and start again"
        raise DatasetError(f"reading the dataset failed: {message}") from error


_WRAPPING = re.compile(
    r"\{\{.*?\}\}|Error in user-defined function.*?with iterator: \S+: |Detected at node .*\s*<stack traces.*>"
)


def _message(error: Any) -> str:
    """Return the text of TensorFlow's error without the place in its graph, and without Keras' traceback."""
    message = str(error.message).split("\n\t [[")[0].rpartition("\n\n")[2]
    return one_line(_WRAPPING.sub("", message))
