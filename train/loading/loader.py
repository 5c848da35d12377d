"""From a dataset on disk to batches of clips: a ``tf.data.Dataset``."""

import os
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any, Literal

import tensorflow as tf

from reelmill.datasets import storage
from reelmill.datasets.errors import UsageError
from reelmill.datasets.manifest import FILE_NAME, Manifest
from reelmill.datasets.records import keys
from reelmill.datasets.records.sequence_example import SequenceExample
from reelmill.train.loading.clip_sampling import Sampling, aligned
from reelmill.train.loading.device_prefetch import checked_device, on_device
from reelmill.train.loading.graph_checks import asserted
from reelmill.train.loading.order import Order, Share, evaluated, last_part
from reelmill.train.loading.record_reader import (
    LabelMode,
    check_single_labels,
    join,
    locate,
    read_rows,
    there,
)
from reelmill.train.loading.service_client import count_workers, served
from reelmill.train.loading.service_server import Address
from reelmill.train.loading.shard_windows import read_windows
from reelmill.train.loading.streams.base import Content, Cut, Stream, parse_content
from reelmill.train.loading.streams.discovery import check_keys, primary_picture, primary_stream, streams_of
from reelmill.train.loading.streams.image_ops import NumCrops, Picture

HEAD = {
    keys.EXAMPLE_ID: tf.io.FixedLenFeature([], tf.string),
    keys.LABEL_INDEX: tf.io.VarLenFeature(tf.int64),
}
"""What every column's records hold of a clip and the loader reads."""


class Loader:
    """One split of a dataset, ready to be read.

    Opening it reads the indexes, the manifest and one record of each column; errors in the choices show here,
    not after an hour of training.

    Args:
        dataset: path or URL of a dataset.
        split: which clips.
        columns: columns to read together; the first that has steps decides which times are taken.
        sampling: which part of a clip.
        picture: what is made of every frame.
        order: in which order, and in batches of what size.
        labels: ``single``: every clip has exactly one label; ``multi``: any number; ``none``: do not load.
        service: address of a tf.data service that loads in this process's stead, as ``grpc://host:5050``.
        memory_mib: most memory that tf.data may use for what it holds ready, in MiB.
        device: where batches are put ahead of time, as ``GPU:0``, without ``clip_id``; None: the host's memory.

    Raises:
        UsageError: a choice makes no sense for this dataset.
        DatasetError: something on disk is not what it should be.
    """

    def __init__(
        self,
        dataset: str,
        *,
        split: str,
        columns: Sequence[str] = ("frames",),
        sampling: Sampling | None = None,
        picture: Picture | None = None,
        order: Order | None = None,
        labels: LabelMode = "single",
        service: str | None = None,
        memory_mib: int | None = None,
        device: str | None = None,
    ) -> None:
        self.split = split
        self.sampling = sampling or Sampling()
        self.picture = picture or Picture()
        self.order = self._checked_order(order or Order())
        self.labels = labels
        self.service = None if service is None else Address.parse(service, name="service")
        if self.service is not None and not storage.is_url(dataset):
            dataset = os.path.abspath(dataset)  # the workers run in folders of their own
        self.memory_mib = memory_mib
        self.device = device and checked_device(device)
        if isinstance(columns, str) or not columns or len(set(columns)) < len(columns):
            raise UsageError(
                f"columns {columns!r} must be a list of different columns, as ['frames', 'flow']"
            )
        if memory_mib is not None and memory_mib < 1:
            raise UsageError(f"memory_mib {memory_mib} must be at least 1, or null for half of what is free")
        if labels not in ("single", "multi", "none"):
            raise UsageError(f"labels {labels!r}: valid are 'single', 'multi' and 'none'")
        with Manifest(storage.join(dataset, FILE_NAME)) as manifest:
            self.class_names = list(manifest.info.labels)
            """Class names; a label is a place in this list."""
            found = [locate(dataset, name, split=split) for name in columns]
            self._records, self.lacking = join(found, split=split)
            """``lacking``: of each column that lacks clips which another has, how many; those clips are left out."""
            if labels == "single":
                check_single_labels(manifest, self._records[0], split)
        firsts = [records.record(0) for records in self._records]
        self._streams = [
            streams_of(name, first, picture=self.picture, sampling=self.sampling)
            for name, first in zip(columns, firsts, strict=True)
        ]
        every = [stream for streams in self._streams for stream in streams]
        check_keys(every)
        self.keys = [stream.key for stream in every]
        """What the columns are called in a batch."""
        self._primary = primary_stream(every, columns)
        self._pictorial = primary_picture(every)
        if self._pictorial is not None:
            self._pictorial.chosen = True
            self._check_first(firsts[self._column_of(self._pictorial)])

    def _checked_order(self, order: Order) -> Order:
        if order.training and self.views > 1:
            raise UsageError(
                f"num_clips {self.sampling.num_clips} and num_crops {self.picture.num_crops} are for evaluation: "
                "training takes one of each"
            )
        return order

    def _column_of(self, stream: Stream) -> int:
        return next(i for i, streams in enumerate(self._streams) if stream in streams)

    def _check_first(self, first: SequenceExample) -> None:
        assert self._pictorial is not None
        height, width = self._pictorial.size(
            {key: values[0] for key, values in first.context.items() if values}
        )
        self.picture.check_size(int(height), int(width), clip_id=first.context[keys.EXAMPLE_ID][0].decode())

    @property
    def views(self) -> int:
        """Windows in time and place that are delivered of every clip; several have an axis of their own."""
        return self.sampling.num_clips * self.picture.num_crops

    @property
    def clip_ids(self) -> Any:
        """Of the clips of the split that are in all of the columns, in the order of the index: a pyarrow array."""
        return self._records[0].clip_ids

    @property
    def num_examples(self) -> int:
        """How many clips those are."""
        return len(self._records[0])

    @property
    def steps_per_epoch(self) -> int:
        """Global batches in one epoch."""
        return self.order.steps_per_epoch(self.num_examples)

    def ordered(self, order: Order) -> "Loader":
        """The same split in another order, or another share of it; nothing is opened again. Raises UsageError."""
        other = copy(self)
        other.order = self._checked_order(order)
        return other

    def dataset(self) -> tf.data.Dataset:
        """Batches as :func:`load` describes them. Raises UsageError where the split fills no batch."""
        clips = tf.data.INFINITE_CARDINALITY
        if not self.order.training:
            clips = evaluated(self.order, self.num_examples)
        places = self.order.batches(self.num_examples, shard=self._records[0].shard)
        if self.service is None:
            batches = self._delivered(places, clips=clips)
        else:
            workers = count_workers(self.service)
            batches = served(places, self._delivered, service=self.service, workers=workers)
        if self._last_batch_is_empty():
            batches = batches.concatenate(tf.data.Dataset.from_tensors(_nothing(batches.element_spec)))
        return batches if self.device is None else on_device(batches, self.device)

    def _delivered(self, batches: tf.data.Dataset, *, clips: int | None = None) -> tf.data.Dataset:
        """Batches of clips for batches of places in the order.

        Args:
            batches: of places.
            clips: how many clips are in all of them, where that is known.
        """
        places = batches.unbatch()
        if self.order.shuffle_shards is None:
            raw = read_rows(places, self._records)
        else:
            raw = read_windows(places, self._records, self.order)
        if clips is not None:
            raw = raw.apply(tf.data.experimental.assert_cardinality(clips))
        found = raw.map(self._clip, num_parallel_calls=tf.data.AUTOTUNE)
        batches = found.batch(
            self.order.replica_batch,
            drop_remainder=self.order.training,
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        if self.picture.dtype != "uint8":  # after batching, so that bytes are copied and not floats
            batches = batches.map(self._finished, num_parallel_calls=tf.data.AUTOTUNE)
        options = tf.data.Options()
        options.deterministic = True
        if self.memory_mib is not None:
            options.autotune.ram_budget = self.memory_mib << 20
        return batches.prefetch(tf.data.AUTOTUNE).with_options(options)

    def _clip(self, when: tf.Tensor, records: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        # Each record on its own: the prefixes of two columns' features may be the same, and putting frames, flow
        # and features of 100 frames together before parsing took twice as long.
        contents = [
            parse_content(there(record, column=column.column), streams, HEAD if number == 0 else {})
            for number, (record, column, streams) in enumerate(
                zip(records, self._records, self._streams, strict=True)
            )
        ]
        head = contents[0]
        random = self._random(when) if self.order.training else None
        cut = self._cut(contents, head[keys.EXAMPLE_ID], random)
        clip = {}
        for content, streams in zip(contents, self._streams, strict=True):
            for stream in streams:
                times = None if stream.time_key is None else content[stream.time_key]
                steps = cut.steps if stream is self._primary or times is None else aligned(times, cut.times)
                clip[stream.key] = self._views(stream.taken(content, steps, cut), stream)
        clip["timestamp"] = self._views([tf.reshape(cut.times, [-1])], self._primary)
        clip["clip_id"] = head[keys.EXAMPLE_ID]
        labels = tf.sparse.to_dense(head[keys.LABEL_INDEX])
        if self.labels == "single":
            clip["label"] = labels[0]
        elif self.labels == "multi":
            hot = tf.one_hot(labels, len(self.class_names))
            clip["label"] = tf.reduce_max(tf.concat([hot, tf.zeros([1, len(self.class_names)])], 0), 0)
        return clip

    def _cut(self, contents: list[Content], clip_id: tf.Tensor, random: tf.Tensor | None) -> Cut:
        """What is taken of a clip; ``random``: four numbers for time, top, left and mirroring."""
        assert self._primary.time_key is not None
        times = contents[self._column_of(self._primary)][self._primary.time_key]
        count = tf.size(times, out_type=tf.int64)
        if random is None:
            starts = self.sampling.spread_starts(count)
        else:
            starts = self.sampling.random_start(count, uniform=random[0])
        steps = self.sampling.frames(starts, count)
        cut = Cut(times=tf.gather(times, steps), steps=steps, count=steps.shape.num_elements())
        if self._pictorial is None:
            return cut
        height, width = self._pictorial.size(contents[self._column_of(self._pictorial)])
        height, width = self._checked(height, width, clip_id)
        return replace(
            cut,
            size=tf.cast(tf.stack([height, width]), tf.int32),
            crops=self.picture.fixed_crops(height, width)
            if random is None
            else [self.picture.random_crop(height, width, uniform=random[1:])],
        )

    def _views(self, crops: Sequence[tf.Tensor], stream: Stream) -> tf.Tensor:
        """What a stream delivers, with an axis for the views where there are several.

        Args:
            crops: what it took, for each crop or once for all.
            stream: the stream.
        """
        clips = self.sampling.num_clips
        by_crop = [tf.split(values, clips) if clips > 1 else [values] for values in crops]
        if stream.time_key is None:
            by_crop = [[tf.squeeze(value, 0) for value in values] for values in by_crop]
        each = by_crop * (self.picture.num_crops // len(by_crop))
        views = [values[clip] for clip in range(clips) for values in each]
        return views[0] if len(views) == 1 else tf.stack(views)

    def _checked(
        self, height: tf.Tensor, width: tf.Tensor, clip_id: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The same, where the crop fits into the picture; an error that names the clip, where it does not."""
        if self.picture.window is None:
            return height, width
        rows, columns = self.picture.window
        message = f"crop {rows}x{columns} is larger than the stored frames (height, width, clip):"
        fits = (height >= rows) & (width >= columns)
        # the decoder waits for the size, and so for the check
        return asserted((height, width), fits, message, height, width, clip_id)

    def _random(self, when: tf.Tensor) -> tf.Tensor:
        """Four numbers in [0, 1), a function of seed, epoch and place in the epoch."""
        # Philox by its key and counter: each block of the counter gives two such numbers
        counter = tf.bitcast(tf.stack([when[1] * 2, when[0]]), tf.uint64)
        return tf.raw_ops.StatelessRandomUniformV2(
            shape=[4],
            key=tf.constant([self.order.seed], tf.uint64),
            counter=counter,
            alg=tf.random.Algorithm.PHILOX.value,
            dtype=tf.float64,
        )

    def _finished(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        done = {s.key: s.finished(batch[s.key]) for streams in self._streams for s in streams}
        return {**batch, **done}

    def _last_batch_is_empty(self) -> bool:
        order, rest = self.order, self.num_examples % self.order.batch_size
        return not order.training and rest > 0 and last_part(order, self.num_examples) == 0


def _nothing(spec: Any) -> Any:
    """A batch of no examples."""
    return tf.nest.map_structure(lambda s: tf.zeros([0, *(d or 0 for d in s.shape[1:])], s.dtype), spec)


def load(
    dataset: str,
    *,
    split: str,
    columns: Sequence[str] = ("frames",),
    clip_frames: int = 16,
    stride: int = 2,
    num_clips: int = 1,
    num_crops: NumCrops = 1,
    waveform_samples: int | None = None,
    batch_size: int = 8,
    training: bool = False,
    seed: int | None = None,
    start_step: int = 0,
    shuffle_shards: int | None = None,
    crop: int | tuple[int, int] | None = 224,
    flip: bool = False,
    dtype: Literal["uint8", "float32"] = "uint8",
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    labels: LabelMode = "single",
    shard_index: int = 0,
    shard_count: int = 1,
    input_context: Any = None,
    service: str | None = None,
    memory_mib: int | None = None,
    device: str | None = None,
) -> tf.data.Dataset:
    """Read a split of a dataset as batches.

    Training delivers epochs without end, each a new permutation of the clips, with a random window of frames,
    a random crop and, if asked, a random flip. What comes at which step is a function of ``seed`` and the
    dataset alone. Evaluation delivers every clip once, in the order of the index, with the middle frames and
    the centre crop.

    Args:
        dataset: path or URL of a dataset that ``reelmill frames`` built.
        split: ``train``, ``val``, ``test`` or another split of the dataset.
        columns: columns to read together. Of the first that has steps, windows are taken; every other gives for
            each of their times its last step that has begun by then. Clips that one of them lacks are left out.
        clip_frames: frames, or steps of the first column, taken of each clip; a clip too short is looped.
        stride: distance from one taken frame to the next, in stored frames.
        num_clips: windows taken of each clip in evaluation, spread evenly over it.
        num_crops: crops of each of those windows in evaluation: 1 the centre; 3 begin, middle and end of the longer
            side; 5 the centre and four corners; 10 those five, and then the five as in a mirror.
        waveform_samples: samples of sound taken from the time of a window's first frame on; needed for sound.
        batch_size: examples in the global batch, over all replicas.
        training: see above.
        seed: needed for training.
        start_step: first global batch to deliver: 0, or where an interrupted training goes on.
        shuffle_shards: for object stores: permute the clips within windows of so many shards, which change with every
            epoch, and read each shard whole, from its start to its end. Two windows are held in memory, three for
            moments. None: permute all clips of the split, and read each by itself.
        crop: height and width of the window in pixels, or one number for both; None: whole frames.
        flip: mirror every other training clip left to right; vx of flow and motion vectors turns round with it.
        dtype: of frames: ``uint8`` 0..255, or ``float32`` 0..1.
        mean: subtracted per channel R, G, B from 0..1; with ``float32``.
        std: divides per channel R, G, B; with ``float32``. ImageNet's are mean (0.485, 0.456, 0.406) and
            std (0.229, 0.224, 0.225).
        labels: ``single``: exactly one label a clip; ``multi``: any number; ``none``: do not load them.
        shard_index: which equal part of each global batch to deliver.
        shard_count: number of parts.
        input_context: takes the place of both: a ``tf.distribute.InputContext``. Each replica's batch then comes
            as one element.
        service: address of a tf.data service that loads in this process's stead, as ``grpc://host:5050``
            (``reelmill serve``), in the same order. Its workers read the dataset under the same path.
        memory_mib: most memory in MiB that tf.data's own buffers may take, as it estimates it; the model, and what
            one batch needs while it is made, come on top. None: half of what is free at the start.
        device: put the next batches on this device, as ``GPU:0``, while the present one is used. Without
            ``clip_id`` then, for a GPU holds no text. What is applied to the dataset afterwards (``take``, ``map``)
            runs on the host again: iterate it as it is.

    Returns:
        A ``tf.data.Dataset`` of dictionaries with an entry for each column, under its name: frames
        [b, t, h, w, 3] RGB; flow [b, t, h, w, 2] float32, (vx, vy) in pixels of the picture as delivered;
        features [b, t, ...] float32; motion vectors [b, t, gh, gw, 2] as flow, one for each 16 pixels of the
        crop. A column of sound gives ``waveform`` [b, samples] float32 and ``log_mel`` [b, t, ...]. Then
        ``timestamp`` [b, t] int64 in microseconds, ``clip_id`` [b] string, and ``label`` [b] int64 (``multi``:
        [b, classes] float32 of 0 and 1). Where ``num_clips * num_crops`` is above 1, the columns and
        ``timestamp`` have an axis of so many views after the first: [b, views, t, ...], all crops of the first
        window in time, then those of the second.

    Raises:
        UsageError: an argument is wrong, or does not fit the dataset.
        DatasetError: something on disk is not what it should be.
    """
    share = Share.of(input_context) if input_context else Share(index=shard_index, count=shard_count)
    order = Order(
        batch_size=batch_size,
        training=training,
        seed=seed,
        start_step=start_step,
        shuffle_shards=shuffle_shards,
        share=share,
    )
    picture = Picture(crop=crop, num_crops=num_crops, flip=flip, dtype=dtype, mean=mean, std=std)
    sampling = Sampling(
        clip_frames=clip_frames, stride=stride, num_clips=num_clips, waveform_samples=waveform_samples
    )
    return Loader(
        dataset,
        split=split,
        columns=columns,
        sampling=sampling,
        picture=picture,
        order=order,
        labels=labels,
        service=service,
        memory_mib=memory_mib,
        device=device,
    ).dataset()
