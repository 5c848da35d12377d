"""Streams of numbers: features of any prefix, motion vectors, and sound."""

from collections.abc import Sequence

import tensorflow as tf

from reelmill.datasets.records import keys
from reelmill.train.loading.streams.base import (
    SCALAR_FLOAT,
    SCALAR_INT,
    STEPS_BYTES,
    STEPS_INT,
    Content,
    Cut,
    Pictorial,
    Stream,
)
from reelmill.train.loading.streams.images import in_delivered_pixels, mirrored_vectors
from reelmill.train.loading.streams.resampling import resample, rescaled_box

MOTION_CELL = 16
"""Pixels of the crop for which one motion vector is delivered."""


class _Values:
    """How features of one prefix are stored, and reading them as float32.

    Args:
        prefix: of their keys.
        dtype: as they are stored: ``float32``, ``float16`` or ``uint8``.
        width: values of one step; None: differs between clips.
    """

    def __init__(self, prefix: str, dtype: str, width: int | None) -> None:
        self.dtype = dtype
        self.floats, self.bytes = (
            keys.prefixed(prefix, k) for k in (keys.FEATURE_FLOATS, keys.FEATURE_BYTES)
        )
        self.minimum, self.maximum = (
            keys.prefixed(prefix, k) for k in (keys.FEATURE_MINIMUM, keys.FEATURE_MAXIMUM)
        )
        self.context = {self.minimum: SCALAR_FLOAT, self.maximum: SCALAR_FLOAT} if dtype == "uint8" else {}
        if dtype != "float32":
            self.lists = {self.bytes: STEPS_BYTES}
        elif width is None:
            self.lists = {self.floats: tf.io.RaggedFeature(tf.float32)}
        else:
            self.lists = {self.floats: tf.io.FixedLenSequenceFeature([width], tf.float32)}

    def rows(self, content: Content, steps: tf.Tensor) -> tf.Tensor:
        """The values of these steps, float32 [n, width]."""
        if self.dtype == "float32":
            rows = tf.gather(content[self.floats], steps)
            return rows.to_tensor() if isinstance(rows, tf.RaggedTensor) else rows
        stored = tf.io.decode_raw(tf.gather(content[self.bytes], steps), self.dtype, little_endian=True)
        values = tf.cast(stored, tf.float32)
        if self.dtype != "uint8":
            return values
        # as reelmill.datasets.records.feature_arrays.dequantise, which is YouTube-8M's
        minimum, maximum = (tf.cast(content[key], tf.float64) for key in (self.minimum, self.maximum))
        span = maximum - minimum
        return values * tf.cast(span / 255.0, tf.float32) + tf.cast(span / 512.0 + minimum, tf.float32)


class FeatureStream(Stream):
    """Features, float32 of one shape.

    Args:
        key: what to deliver them under.
        prefix: of their keys.
        dtype: as they are stored.
        dimensions: of the features of one step.
    """

    def __init__(self, key: str, *, prefix: str, dtype: str, dimensions: Sequence[int]) -> None:
        self.key = key
        self.time_key = keys.prefixed(prefix, keys.FEATURE_TIMESTAMP)
        self.dimensions = list(dimensions)
        width = 1
        for side in self.dimensions:
            width *= side
        self.values = _Values(prefix, dtype, width)
        self.context = self.values.context
        self.lists = {**self.values.lists, self.time_key: STEPS_INT}

    def taken(self, content: Content, steps: tf.Tensor, cut: Cut) -> Sequence[tf.Tensor]:
        """Features [k * t, *dimensions] float32."""
        rows = self.values.rows(content, tf.reshape(steps, [-1]))
        return [tf.reshape(rows, [cut.count, *self.dimensions])]


class MotionStream(Pictorial):
    """Motion vectors on a grid, [gh, gw, 2] float32: as optical flow, in pixels of the picture as delivered.

    With a crop the grid has one vector for each :data:`MOTION_CELL` pixels of it, rounded up; without one it is
    as stored.

    Args:
        key: what to deliver them under.
        dtype: as they are stored.
        crop: height and width of the window in pixels; None: the whole grid.
    """

    def __init__(self, key: str, *, dtype: str, crop: tuple[int, int] | None) -> None:
        prefix = keys.MOTION_PREFIX
        self.key = key
        self.grid = [-(-side // MOTION_CELL) for side in crop] if crop else None
        self.height, self.width, self.dimensions, self.time_key = (
            keys.prefixed(prefix, k)
            for k in (
                keys.FEATURE_HEIGHT,
                keys.FEATURE_WIDTH,
                keys.FEATURE_DIMENSIONS,
                keys.FEATURE_TIMESTAMP,
            )
        )
        self.values = _Values(prefix, dtype, None)
        self.context = {
            **self.values.context,
            self.height: SCALAR_INT,
            self.width: SCALAR_INT,
            self.dimensions: tf.io.FixedLenFeature([3], tf.int64),
        }
        self.lists = {**self.values.lists, self.time_key: STEPS_INT}

    def size(self, content: Content) -> tuple[tf.Tensor, tf.Tensor]:
        """Of the picture that the grid covers."""
        return content[self.height], content[self.width]

    def taken(self, content: Content, steps: tf.Tensor, cut: Cut) -> Sequence[tf.Tensor]:
        """ClipFeatures [k * t, gh, gw, 2] float32 of each crop."""
        grid = content[self.dimensions][:2]
        rows = self.values.rows(content, tf.reshape(steps, [-1]))
        whole = tf.reshape(rows, tf.concat([[cut.count], grid, [2]], 0))
        found = []
        for crop in cut.crops:
            vectors = whole
            if self.grid:
                box = rescaled_box(crop.window, cut.size, grid)
                vectors = resample(whole, box, tf.constant(self.grid))
                vectors = tf.ensure_shape(vectors, [cut.count, *self.grid, 2])
            found.append(mirrored_vectors(in_delivered_pixels(vectors, cut, self.size(content)), crop.flip))
        return found


class WaveformStream(Stream):
    """Sound, [samples] float32 of -1 to 1: from the time of a window's first step on, silence past the end.

    Args:
        key: what to deliver it under.
        samples: how many to take.
        timed: whether the records say when the first sample is; else it is taken for the clip's start.
        rate_type: ``tf.float32`` or ``tf.int64``, as the sample rate is stored.
    """

    def __init__(self, key: str, *, samples: int, timed: bool, rate_type: tf.DType) -> None:
        self.key = key
        self.samples = samples
        self.timed = timed
        self.rate, self.signal, self.begin = (
            keys.prefixed(keys.WAVEFORM_PREFIX, k)
            for k in (keys.FEATURE_SAMPLE_RATE, keys.FEATURE_FLOATS, keys.FEATURE_TIMESTAMP)
        )
        self.context = {
            self.rate: tf.io.FixedLenFeature([], rate_type),
            keys.CLIP_START: tf.io.FixedLenFeature([], tf.int64, default_value=0),
        }
        self.lists = {self.signal: tf.io.RaggedFeature(tf.float32)}
        if timed:
            self.lists[self.begin] = STEPS_INT

    def taken(self, content: Content, steps: tf.Tensor, cut: Cut) -> Sequence[tf.Tensor]:  # noqa: ARG002
        """Samples [k, samples] float32."""
        signal = content[self.signal].flat_values
        begin = content[self.begin][0] if self.timed else content[keys.CLIP_START]
        since = tf.cast(cut.times[:, 0] - begin, tf.float64) / 1e6
        first = tf.cast(tf.round(since * tf.cast(content[self.rate], tf.float64)), tf.int64)
        places = first[:, None] + tf.range(self.samples, dtype=tf.int64)
        length = tf.size(signal, out_type=tf.int64)
        silent = tf.concat([signal, [0.0]], 0)
        return [tf.gather(silent, tf.where((places >= 0) & (places < length), places, length))]
