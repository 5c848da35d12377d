"""Which example comes when: a function of seed, epoch and step, and of nothing else.

An epoch is one permutation of the split's rows, cut into global batches. Every input pipeline computes the
same permutation and takes its own part of each batch, so the sequence of global batches does not depend on
how many pipelines there are, and any step can be the first.

With ``shuffle_shards`` the shards are permuted and cut into windows of so many, and the rows of one window come
before those of the next: then shards can be read whole, one window after the other.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from reelmill.datasets.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The part of every global batch that one input pipeline delivers."""

    index: int = 0
    """Number of this pipeline, from 0."""
    count: int = 1
    """Pipelines in all."""
    replicas: int = 1
    """Replicas that this pipeline feeds: its part of a global batch comes as so many batches in a row."""

    def __post_init__(self) -> None:
        if self.count < 1 or self.replicas < 1 or not 0 <= self.index < self.count:
            raise UsageError(
                f"shard_index {self.index} of shard_count {self.count} with {self.replicas} replicas: "
                "the index runs from 0 to one below the count, and both numbers are at least 1"
            )

    @classmethod
    def of(cls, context: Any) -> "Share":
        """The share of a ``tf.distribute.InputContext``."""
        pipelines = context.num_input_pipelines
        return cls(
            index=context.input_pipeline_id,
            count=pipelines,
            replicas=max(1, context.num_replicas_in_sync // pipelines),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How a split's rows are put in sequence and cut into batches."""

    batch_size: int = 8
    """Examples in one global batch, over all replicas."""
    training: bool = False
    """True: epochs without end, each a new permutation, full batches only. False: every row once, in order."""
    seed: int | None = None
    """Where the permutations and all random choices start from; training needs one."""
    start_step: int = 0
    """First global batch to deliver, counted from the beginning of training."""
    shuffle_shards: int | None = None
    """Shards whose rows are permuted together in training; None: all rows of the split."""
    share: Share = field(default_factory=Share)

    def __post_init__(self) -> None:
        replicas = self.share.count * self.share.replicas
        if self.batch_size < 1:
            raise UsageError(f"batch_size {self.batch_size} must be at least 1")
        if self.batch_size % replicas:
            raise UsageError(
                f"batch_size {self.batch_size} is the global batch and must be divisible by {replicas} replicas: "
                f"take {max(1, round(self.batch_size / replicas)) * replicas}"
            )
        if self.training and self.seed is None:
            raise UsageError("training=True needs a seed, or no run could be repeated: pass seed=0")
        if self.seed is not None and not 0 <= self.seed < 1 << 63:
            raise UsageError(f"seed {self.seed} must be between 0 and 2**63 - 1")
        if self.start_step < 0 or (self.start_step and not self.training):
            raise UsageError(f"start_step {self.start_step}: at least 0, and above 0 only with training=True")

        if self.shuffle_shards is not None and self.shuffle_shards < 1:
            raise UsageError(
                f"shuffle_shards {self.shuffle_shards} must be at least 1, or null for the whole split"
            )
        if self.shuffle_shards is not None and not self.training:
            raise UsageError(
                f"shuffle_shards {self.shuffle_shards} is for training: evaluation keeps the order of the index"
            )

    @property
    def pipeline_batch(self) -> int:
        """Examples of a global batch that come through this pipeline."""
        return self.batch_size // self.share.count

    @property
    def replica_batch(self) -> int:
        """Examples in one batch as delivered: what one replica gets."""
        return self.pipeline_batch // self.share.replicas

    def steps_per_epoch(self, examples: int) -> int:
        """Global batches in one epoch; training drops what fills no batch, evaluation keeps it."""
        return examples // self.batch_size if self.training else -(-examples // self.batch_size)

    def batches(self, examples: int, *, shard: NDArray[np.int32] | None = None) -> tf.data.Dataset:
        """What each batch as delivered is made of: ``row`` to read, its ``place`` in the epoch, and the ``epoch``.

        Every element is a dictionary of int64 vectors of one length, :attr:`replica_batch` or, at the end of an
        evaluation, less; element n depends on n alone. With ``shuffle_shards`` there are two vectors more:
        ``window``, the number of the row's window in the epoch, and ``slot``, its shard's place in that window.

        Args:
            examples: rows of the split.
            shard: number of each row's shard; needed with ``shuffle_shards``.

        Raises:
            UsageError: the split has fewer examples than one training batch.
        """
        return (
            _training_batches(self, examples, shard) if self.training else _evaluation_batches(self, examples)
        )


def permutation(examples: int, *, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """The rows 0 .. examples-1 in the order of one epoch, int64.

    Sorting random keys costs a fraction of a second per million rows and epoch, and every permutation is
    equally likely. ``tf.random.experimental.index_shuffle`` needs no memory, but on a range of about 100 it
    knows only 256 permutations: epochs would repeat.
    """
    keys = tf.random.stateless_uniform(
        [examples],
        seed=tf.stack([tf.constant(seed, tf.int64), epoch]),
        minval=None,
        maxval=None,
        dtype=tf.int64,
        alg="philox",
    )
    return tf.cast(tf.argsort(keys, stable=True), tf.int64)


def shard_order(shard: NDArray[np.int32], *, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """The numbers of the shards that rows lie in, up to the highest, in the order of one epoch, int64."""
    # of epochs below 0, so that it has nothing to do with any permutation of rows
    return permutation(int(shard.max()) + 1, seed=seed, epoch=-1 - epoch)


def _training_batches(order: Order, examples: int, shard: NDArray[np.int32] | None) -> tf.data.Dataset:
    steps, share, seed = order.steps_per_epoch(examples), order.share, order.seed
    if not steps:
        raise UsageError(
            f"the split has {examples} examples, fewer than one batch of {order.batch_size}: lower batch_size"
        )
    assert seed is not None
    first_epoch, first_step = divmod(order.start_step, steps)

    def mine(values: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        batches = tf.reshape(values, [steps, share.count, order.pipeline_batch])[:, share.index]
        begin = tf.where(epoch == first_epoch, first_step, 0)
        return tf.reshape(batches[begin:], [-1, order.replica_batch])

    def rows(epoch: tf.Tensor) -> dict[str, tf.Tensor]:
        used = steps * order.batch_size
        place = mine(tf.range(used, dtype=tf.int64), epoch)
        row = permutation(examples, seed=seed, epoch=epoch)
        read = {"row": row} if order.shuffle_shards is None else _in_windows(row, shard, order, epoch)
        taken = {key: mine(values[:used], epoch) for key, values in read.items()}
        return {**taken, "place": place, "epoch": tf.fill(tf.shape(place), epoch)}

    epochs = tf.data.Dataset.range(first_epoch, tf.int64.max).map(rows)
    # the next epoch's permutation is ready before this one ends
    flat = epochs.prefetch(1).flat_map(tf.data.Dataset.from_tensor_slices)
    return flat.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def _in_windows(
    row: tf.Tensor, shard: NDArray[np.int32] | None, order: Order, epoch: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Permuted rows, those of the first window first; with each row's ``window`` and its shard's ``slot`` there."""
    assert shard is not None
    assert order.seed is not None
    assert order.shuffle_shards is not None
    rank = tf.cast(tf.argsort(shard_order(shard, seed=order.seed, epoch=epoch)), tf.int64)
    rank = tf.gather(rank, tf.constant(shard))
    row = tf.gather(row, tf.argsort(tf.gather(rank, row) // order.shuffle_shards, stable=True))
    rank = tf.gather(rank, row)
    return {"row": row, "window": rank // order.shuffle_shards, "slot": rank % order.shuffle_shards}


def _evaluation_batches(order: Order, examples: int) -> tf.data.Dataset:
    """This pipeline's part of every batch; the last, smaller batch is divided as evenly as it goes."""
    full, rest = divmod(examples, order.batch_size)
    size, share = order.pipeline_batch, order.share
    before = share.index * (rest // share.count) + min(share.index, rest % share.count)

    def place(number: tf.Tensor) -> dict[str, tf.Tensor]:
        inside = (number // size) * order.batch_size + share.index * size + number % size
        row = tf.where(number < full * size, inside, full * order.batch_size + before + number - full * size)
        return {"row": row, "place": row, "epoch": tf.zeros_like(row)}

    return tf.data.Dataset.range(evaluated(order, examples)).batch(order.replica_batch).map(place)


def evaluated(order: Order, examples: int) -> int:
    """Examples that this pipeline delivers in an evaluation."""
    return examples // order.batch_size * order.pipeline_batch + last_part(order, examples)


def last_part(order: Order, examples: int) -> int:
    """Examples that this pipeline gets of the last, smaller batch of an evaluation; 0 where there is none."""
    rest, share = examples % order.batch_size, order.share
    return rest // share.count + (share.index < rest % share.count)
