"""Streams of pictures: frames as they are stored, and optical flow."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import tensorflow as tf

from reelmill.datasets.records import keys
from reelmill.train.loading.streams.base import SCALAR_INT, STEPS_BYTES, STEPS_INT, Content, Cut, Pictorial
from reelmill.train.loading.streams.image_ops import Picture
from reelmill.train.loading.streams.resampling import covering, resample, rescaled_box


class _JpegStream(Pictorial):
    """What frames and flow have in common: each step is a JPEG, cut where the crops are.

    Args:
        key: what to deliver it under.
        picture: how it is decoded and cut.
    """

    channels: ClassVar[int]
    accurate: ClassVar[bool]
    """Whether the last bit of what is decoded counts."""
    encoded: ClassVar[str]
    """The feature list that holds the JPEGs."""
    height: ClassVar[str]
    width: ClassVar[str]
    time_key: str
    more: Mapping[str, Any] = {}
    """What else to read of the context."""

    def __init__(self, key: str, picture: Picture) -> None:
        self.key = key
        self.picture = picture
        self.context = {self.height: SCALAR_INT, self.width: SCALAR_INT, **self.more}
        self.lists = {self.encoded: STEPS_BYTES, self.time_key: STEPS_INT}

    def size(self, content: Content) -> tuple[tf.Tensor, tf.Tensor]:
        """See :class:`Pictorial`."""
        return content[self.height], content[self.width]

    def taken(self, content: Content, steps: tf.Tensor, cut: Cut) -> Sequence[tf.Tensor]:
        """Values [k * t, h, w, c] of each crop."""
        jpegs = tf.gather(content[self.encoded], tf.reshape(steps, [-1]))
        shape = [cut.count, *(self.picture.window or (None, None)), self.channels]
        if self.chosen:
            pixels = self.picture.decode(jpegs, cut.area, count=cut.count, accurate=self.accurate)
            values = self.values(pixels, content)
            alone = len(cut.crops) == 1
            found = [values] if alone else [_part(values, crop.window, cut.area) for crop in cut.crops]
        else:
            found = self._resized(jpegs, content, cut)
        return [
            self.mirrored(tf.ensure_shape(values, shape), crop.flip)
            for values, crop in zip(found, cut.crops, strict=True)
        ]

    def _resized(self, jpegs: tf.Tensor, content: Content, cut: Cut) -> list[tf.Tensor]:
        """The crops, where they were placed in pictures that may be of another size."""
        size = tf.cast(tf.stack(self.size(content)), tf.int32)
        same = tf.reduce_all(size == cut.size)
        around = covering(rescaled_box(cut.area, cut.size, size), cut.area[2:], size)
        area = tf.where(same, cut.area, around)
        values = self.values(
            self.picture.decode(jpegs, area, count=cut.count, accurate=self.accurate), content
        )

        def one(window: tf.Tensor) -> tf.Tensor:
            box = rescaled_box(window, cut.size, size) - tf.concat([_floats(area[:2]), [0.0, 0.0]], 0)
            return tf.cond(
                same,
                lambda: _part(values, window, area),
                lambda: self.resized(values, box, window[2:], content, cut),
            )

        return [one(crop.window) for crop in cut.crops]

    @abstractmethod
    def values(self, pixels: tf.Tensor, content: Content) -> tf.Tensor:
        """What decoded pixels [n, h, w, 3] uint8 stand for, [n, h, w, c]."""

    @abstractmethod
    def resized(
        self, values: tf.Tensor, box: tf.Tensor, into: tf.Tensor, content: Content, cut: Cut
    ) -> tf.Tensor:
        """A box of ``values``, brought to the size ``into``; both as :func:`resample` takes them."""

    @abstractmethod
    def mirrored(self, values: tf.Tensor, flip: tf.Tensor | None) -> tf.Tensor:
        """``values``, as in a mirror where ``flip`` is true."""


class FrameStream(_JpegStream):
    """Frames, [h, w, 3] RGB uint8, or float32 once they are finished."""

    channels = 3
    accurate = False
    encoded, time_key = keys.IMAGE_ENCODED, keys.IMAGE_TIMESTAMP
    height, width = keys.IMAGE_HEIGHT, keys.IMAGE_WIDTH

    def values(self, pixels: tf.Tensor, content: Content) -> tf.Tensor:  # noqa: ARG002
        """The pixels themselves."""
        return pixels

    def resized(
        self,
        values: tf.Tensor,
        box: tf.Tensor,
        into: tf.Tensor,
        content: Content,  # noqa: ARG002
        cut: Cut,  # noqa: ARG002
    ) -> tf.Tensor:
        """See :class:`_JpegStream`."""
        return tf.saturate_cast(tf.round(resample(_floats(values), box, into)), tf.uint8)

    def mirrored(self, values: tf.Tensor, flip: tf.Tensor | None) -> tf.Tensor:
        """See :class:`_JpegStream`."""
        if flip is None:
            return values
        return tf.cond(flip, lambda: tf.reverse(values, [2]), lambda: values)

    def finished(self, batch: tf.Tensor) -> tf.Tensor:
        """In the chosen dtype and scale; late, so that bytes are copied and not floats."""
        return self.picture.converted(batch)


class FlowStream(_JpegStream):
    """Optical flow, [h, w, 2] float32: vx to the right and vy down, in pixels of the picture as delivered.

    Args:
        key: what to deliver it under.
        picture: how it is cut.
        saturation_type: ``tf.float32`` or ``tf.int64``, as the saturation is stored.
    """

    channels = 2
    accurate = True
    encoded, time_key = keys.FLOW_ENCODED, keys.FLOW_TIMESTAMP
    height, width = keys.FLOW_HEIGHT, keys.FLOW_WIDTH

    def __init__(self, key: str, picture: Picture, *, saturation_type: tf.DType) -> None:
        self.more = {keys.FLOW_SATURATION: tf.io.FixedLenFeature([], saturation_type)}
        super().__init__(key, picture)

    def values(self, pixels: tf.Tensor, content: Content) -> tf.Tensor:
        """``(v / 255 - 0.5) * 2 * saturation`` of R and G."""
        factor = 2.0 * _floats(content[keys.FLOW_SATURATION])
        return _floats(pixels[..., :2]) * (factor / 255.0) - factor / 2.0

    def resized(
        self, values: tf.Tensor, box: tf.Tensor, into: tf.Tensor, content: Content, cut: Cut
    ) -> tf.Tensor:
        """See :class:`_JpegStream`; vectors grow with the picture."""
        # linear both: scaled before, there are fewer of them where the map is enlarged
        return resample(in_delivered_pixels(values, cut, self.size(content)), box, into)

    def mirrored(self, values: tf.Tensor, flip: tf.Tensor | None) -> tf.Tensor:
        """See :class:`_JpegStream`."""
        return mirrored_vectors(values, flip)


def in_delivered_pixels(vectors: tf.Tensor, cut: Cut, size: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    """ClipFeatures [n, h, w, 2] in pixels of a picture of ``size`` (height, width), in those of the delivered one."""
    factors = _floats(cut.size) / _floats(tf.stack(size))
    return vectors * factors[::-1]


def mirrored_vectors(vectors: tf.Tensor, flip: tf.Tensor | None) -> tf.Tensor:
    """ClipFeatures [n, h, w, 2] as in a mirror: also vx turns round."""
    if flip is None:
        return vectors
    return tf.cond(flip, lambda: tf.reverse(vectors, [2]) * [-1.0, 1.0], lambda: vectors)


def _part(values: tf.Tensor, window: tf.Tensor, area: tf.Tensor) -> tf.Tensor:
    """What ``window`` shows of ``values`` [n, h, w, c], which show ``area``."""
    begin = tf.concat([[0], window[:2] - area[:2], [0]], 0)
    return tf.slice(values, begin, tf.concat([[-1], window[2:], [-1]], 0))


def _floats(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(values, tf.float32)
