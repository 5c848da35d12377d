"""The same window in pictures of another size."""

import tensorflow as tf

MARGIN = 2
"""Pixels around a window, besides the reach of the filter: at the edge of what is decoded chroma is less exact."""


def rescaled_box(window: tf.Tensor, size: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """A window of pictures of ``size`` in pictures of the size ``other`` that show the same.

    Args:
        window: [top, left, height, width] in pixels.
        size: height and width.
        other: height and width.

    Returns:
        [top, left, height, width] float32, not rounded.
    """
    factors = tf.cast(other, tf.float32) / tf.cast(size, tf.float32)
    return tf.cast(window, tf.float32) * tf.tile(factors, [2])


def covering(box: tf.Tensor, into: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Whole pixels that :func:`resample` needs to bring ``box`` to the size ``into``: int32, a box as well.

    Args:
        box: [top, left, height, width] float32.
        into: height and width.
        size: of the pictures that the box lies in; it reaches no further.
    """
    reach = tf.maximum(box[2:] / tf.cast(into, tf.float32), 1.0) + MARGIN
    begin = tf.maximum(tf.cast(tf.floor(box[:2] - reach), tf.int32), 0)
    end = tf.minimum(tf.cast(tf.math.ceil(box[:2] + box[2:] + reach), tf.int32), tf.cast(size, tf.int32))
    return tf.concat([begin, end - begin], 0)


def resample(values: tf.Tensor, box: tf.Tensor, into: tf.Tensor) -> tf.Tensor:
    """A window of pictures, which need not begin at a whole pixel, brought to another size.

    Linear interpolation between the centres of pixels; going down, the triangle grows with the factor, so that
    every pixel counts (as ``tf.image.resize`` with ``antialias=True``).

    Args:
        values: [n, h, w, c] float32.
        box: [top, left, height, width] in their pixels, float32.
        into: height and width, int32 [2].

    Returns:
        [n, *into, c] float32.
    """
    shrinks = tf.reduce_any(box[2:] > tf.cast(into, tf.float32))
    return tf.cond(shrinks, lambda: _scaled(values, box, into), lambda: _enlarged(values, box, into))


def _scaled(values: tf.Tensor, box: tf.Tensor, into: tf.Tensor) -> tf.Tensor:
    scale = tf.cast(into, tf.float32) / box[2:]
    return tf.raw_ops.ScaleAndTranslate(
        images=values,
        size=into,
        scale=scale,
        translation=-box[:2] * scale,
        kernel_type="triangle",
        antialias=True,
    )


def _enlarged(values: tf.Tensor, box: tf.Tensor, into: tf.Tensor) -> tf.Tensor:
    """The same where nothing shrinks, in half the time."""
    count = tf.shape(values)[0]
    # it knows nothing beyond the outermost centres: there they are repeated once
    padded = tf.pad(values, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    last = tf.cast(tf.shape(padded)[1:3] - 1, tf.float32)
    half = box[2:] / tf.cast(into, tf.float32) / 2
    first_centre = (box[:2] + half + 0.5) / last
    last_centre = (box[:2] + box[2:] - half + 0.5) / last
    ends = tf.repeat(tf.concat([first_centre, last_centre], 0)[None], count, axis=0)
    return tf.image.crop_and_resize(padded, ends, tf.range(count), into)
