"""Reading shards whole, a window of them at a time: one sequential read for each, which object stores like.

The window that is consumed and the one after it are in memory, as serialized records.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from reelmill.train.order import Order, shard_order
from reelmill.train.records import Records

BUFFER_BYTES = 8 << 20
"""What is asked of a file system at a time; a request to an object store takes as long as reading so much."""

Place = dict[str, tf.Tensor]
Held = tuple[tf.Tensor, ...]
"""Of each column a list of one window's serialized records: slot by slot, each with room for the longest shard."""


def read_windows(
    places: tf.data.Dataset, columns: Sequence[Records], order: Order, *, loaders: int
) -> tf.data.Dataset:
    """The serialized records of each place, checksums verified.

    Args:
        places: dictionaries of scalars as :meth:`Order.batches` gives them with ``shuffle_shards``.
        columns: where the records are.
        order: what ``places`` are made by.
        loaders: how many read these windows, each its own part of the clips.

    Returns:
        A dataset of pairs: epoch and place in it, int64 [2]; and a tuple of the record in each column.
    """
    assert order.shuffle_shards is not None
    load = _loader(columns, order)
    readers = [_reader(column) for column in columns]

    def follow(
        state: tuple[tf.Tensor, Held], place: Place
    ) -> tuple[tuple[tf.Tensor, Held], tuple[Place, Held]]:
        wanted = tf.stack([place["epoch"], place["window"]])
        held = tf.cond(tf.reduce_all(wanted == state[0]), lambda: state[1], lambda: load(wanted))
        return (wanted, held), (place, held)

    def pick(place: Place, held: Held) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        when = tf.stack([place["epoch"], place["place"]])
        return when, tuple(read(place, records) for read, records in zip(readers, held, strict=True))

    nothing = tuple(_room(0) for _ in columns)
    followed = places.scan((tf.constant([-1, -1], tf.int64), nothing), follow)
    # Each element refers to its window as a whole, so places wait here without being copied. As many as a window
    # has can wait: so the next window is read while this one is consumed, and none after that.
    ahead = -(-order.shuffle_shards * max(column.longest for column in columns) // loaders)
    return followed.prefetch(ahead).map(pick, num_parallel_calls=tf.data.AUTOTUNE)


def _reader(column: Records) -> Callable[[Place, tf.Tensor], tf.Tensor]:
    """A graph function from a place and its window's records to its record."""
    inside, size = tf.constant(column.place), tf.constant(column.size)

    def read(place: Place, records: tf.Tensor) -> tf.Tensor:
        row = place["row"]
        record = tf.raw_ops.TensorListGetItem(
            input_handle=records,
            index=tf.cast(place["slot"] * column.longest + tf.gather(inside, row), tf.int32),
            element_shape=tf.constant([], tf.int32),
            element_dtype=tf.string,
        )
        check = tf.debugging.Assert(
            tf.strings.length(record) == tf.cast(tf.gather(size, row), tf.int32),
            [f"corrupted shard: column {column.column!r} holds another record than its index names"],
        )
        with tf.control_dependencies([check]):
            return tf.identity(record)

    return read


def _loader(columns: Sequence[Records], order: Order) -> Callable[[tf.Tensor], Held]:
    """A graph function from [epoch, window] to that window's records."""
    slots, seed, shard = order.shuffle_shards, order.seed, columns[0].shard
    assert slots is not None
    assert seed is not None
    files = [tf.constant(column.files) for column in columns]

    def load(wanted: tf.Tensor) -> Held:
        shards = shard_order(shard, seed=seed, epoch=wanted[0])[wanted[1] * slots :][:slots]
        return tuple(
            _window(tf.gather(paths, shards), slots, column.longest)
            for paths, column in zip(files, columns, strict=True)
        )

    return load


def _window(paths: tf.Tensor, slots: int, longest: int) -> tf.Tensor:
    """All records of these files, each file from a multiple of ``longest`` on."""

    def records(slot: tf.Tensor, path: tf.Tensor) -> tf.data.Dataset:
        file = tf.data.TFRecordDataset(path, buffer_size=BUFFER_BYTES).take(longest)
        return tf.data.Dataset.zip(tf.data.Dataset.counter(slot * longest), file)

    every = (
        tf.data.Dataset.from_tensor_slices(paths)
        .enumerate()
        .interleave(records, cycle_length=slots, num_parallel_calls=slots, deterministic=False)
    )
    return every.reduce(
        _room(slots * longest),
        lambda held, found: tf.raw_ops.TensorListSetItem(
            input_handle=held, index=tf.cast(found[0], tf.int32), item=found[1]
        ),
    )


def _room(size: int) -> tf.Tensor:
    return tf.raw_ops.TensorListReserve(
        element_shape=tf.constant([], tf.int32), num_elements=size, element_dtype=tf.string
    )
