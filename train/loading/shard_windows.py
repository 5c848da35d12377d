"""Reading shards whole, a window of them at a time: one sequential read for each, which object stores like.

The window that is consumed and the one after it are in memory, as serialized records; for moments the one before, too.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from reelmill.train.loading.graph_checks import asserted
from reelmill.train.loading.order import Order, shard_order
from reelmill.train.loading.record_reader import Records

BUFFER_BYTES = 8 << 20
"""What is asked of a file system at a time; a request to an object store takes as long as reading so much."""

Place = dict[str, tf.Tensor]
Run = tuple[tf.Tensor, tf.Tensor]
"""A window, as [epoch, number in the epoch], and how many places in a row are of it."""
Held = tuple[tf.Tensor, ...]
"""Of each column one window's serialized records: slot by slot, each with room for the longest shard."""


def read_windows(places: tf.data.Dataset, columns: Sequence[Records], order: Order) -> tf.data.Dataset:
    """The serialized records of each place, checksums verified.

    Args:
        places: dictionaries of scalars without end, as :meth:`Order.batches` gives them with ``shuffle_shards``.
        columns: where the records are.
        order: what ``places`` are made by.

    Returns:
        A dataset of pairs: epoch and place in it, int64 [2]; and a tuple of the record in each column.
    """
    readers = [_reader(column) for column in columns]

    def pick(place: Place, held: Held) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        when = tf.stack([place["epoch"], place["place"]])
        return when, tuple(read(place, records) for read, records in zip(readers, held, strict=True))

    # the next window is read while this one is consumed, and none after that
    windows = _runs(places).flat_map(_loader(columns, order)).prefetch(1)
    held = windows.flat_map(_repeated)
    return tf.data.Dataset.zip((places, held)).map(pick, num_parallel_calls=tf.data.AUTOTUNE)


def _runs(places: tf.data.Dataset) -> tf.data.Dataset:
    """The windows that places are of, one after the other; the places are made a second time for it."""

    def follow(run: Run, place: Place) -> tuple[Run, tuple[tf.Tensor, Run]]:
        window = tf.stack([place["epoch"], place["window"]])
        same = tf.reduce_all(window == run[0])
        return (window, tf.where(same, run[1] + 1, 1)), (same, run)

    none = tf.constant([-1, -1], tf.int64), tf.constant(0, tf.int64)
    ended = places.scan(none, follow).filter(lambda same, run: ~same & (run[1] > 0))
    return ended.map(lambda _, run: run)


def _repeated(count: tf.Tensor, held: Held) -> tf.data.Dataset:
    """What is held, so many times; each element refers to it without a copy."""
    return tf.data.Dataset.from_tensor_slices(tuple(records[None] for records in held)).repeat(count)


def _reader(column: Records) -> Callable[[Place, tf.Tensor], tf.Tensor]:
    """A graph function from a place and its window's records to its record."""
    inside, size = tf.constant(column.place), tf.constant(column.size)

    def read(place: Place, records: tf.Tensor) -> tf.Tensor:
        row = place["row"]
        record = tf.gather(records, place["slot"] * column.longest + tf.gather(inside, row))
        same = tf.strings.length(record) == tf.cast(tf.gather(size, row), tf.int32)
        message = f"corrupted shard: column {column.column!r} holds another record than its index names"
        return asserted(record, same, message)

    return read


def _loader(columns: Sequence[Records], order: Order) -> Callable[[tf.Tensor, tf.Tensor], tf.data.Dataset]:
    """A graph function from a run to a dataset of one element: its length, and its window's records."""
    slots, seed, shard = order.shuffle_shards, order.seed, columns[0].shard
    assert slots is not None
    assert seed is not None
    files = [tf.constant(column.files) for column in columns]

    def load(window: tf.Tensor, count: tf.Tensor) -> tf.data.Dataset:
        shards = shard_order(shard, seed=seed, epoch=window[0])[window[1] * slots :][:slots]
        held = tuple(
            _window(tf.gather(paths, shards), slots, column.longest)
            for paths, column in zip(files, columns, strict=True)
        )
        return tf.data.Dataset.zip((tf.data.Dataset.from_tensor_slices([count]), held))

    return load


def _window(paths: tf.Tensor, slots: int, longest: int) -> tf.data.Dataset:
    """All records of these files in one element, each file from a multiple of ``longest`` on."""
    room = tf.data.Dataset.from_tensor_slices([""]).repeat()

    def records(path: tf.Tensor) -> tf.data.Dataset:
        return tf.data.TFRecordDataset(path, buffer_size=BUFFER_BYTES).concatenate(room).take(longest)

    # not by reduce, nor into a list of tensors: see read_rows on operations that count as having a state
    every = tf.data.Dataset.from_tensor_slices(paths).interleave(
        records, cycle_length=slots, block_length=longest, num_parallel_calls=slots
    )
    return every.batch(slots * longest)
