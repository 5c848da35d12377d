"""From the JPEGs of a clip to pixels: crop while decoding, flip, scale."""

from dataclasses import dataclass
from typing import Literal, get_args

import tensorflow as tf

from reelmill.datasets.errors import UsageError
from reelmill.train.loading.clip_sampling import uniform_below
from reelmill.train.loading.streams.base import Crop

NumCrops = Literal[1, 3, 5, 10]

UNROLLED_FRAMES = 64
"""Up to so many decoders are separate nodes of the graph, which was 5 to 15 % faster than a loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What is made of every frame. All frames of one clip get the same windows and the same flip."""

    crop: int | tuple[int, int] | None = 224
    """Height and width of the window, or one number for both; None: whole frames, which must agree in size."""
    num_crops: NumCrops = 1
    """Windows in evaluation: 1 the centre; 3 begin, middle and end of the longer side; 5 the centre and the corners
    (upper left, upper right, lower left, lower right); 10 those five, then each as in a mirror."""
    flip: bool = False
    """Mirror every other training clip left to right. Off by default: left and right may be the label."""
    dtype: Literal["uint8", "float32"] = "uint8"
    """``uint8`` 0..255, or ``float32``: 0..1, then ``mean`` subtracted and divided by ``std``."""
    mean: tuple[float, float, float] | None = None
    """Per channel R, G, B, on the scale 0..1; only with ``float32``."""
    std: tuple[float, float, float] | None = None
    """Per channel R, G, B, on the scale 0..1; only with ``float32``."""

    def __post_init__(self) -> None:
        if any(side < 1 for side in self.window or ()):
            raise UsageError(f"crop {self.crop!r} must be at least 1 pixel, or null for whole frames")
        if self.num_crops not in get_args(NumCrops):
            raise UsageError(f"num_crops {self.num_crops!r}: valid are 1, 3, 5 and 10")
        if self.num_crops > 1 and self.window is None:
            raise UsageError(f"num_crops {self.num_crops} needs a crop: whole frames show everything at once")
        if self.dtype not in ("uint8", "float32"):
            raise UsageError(f"dtype {self.dtype!r}: valid are 'uint8' and 'float32'")
        if self.dtype == "uint8" and (self.mean or self.std):
            raise UsageError("mean and std need dtype='float32'")
        if self.std and min(self.std) <= 0:
            raise UsageError(f"std {self.std} must be above 0 in every channel")

    @property
    def window(self) -> tuple[int, int] | None:
        """Height and width of the crop."""
        return (self.crop, self.crop) if isinstance(self.crop, int) else self.crop

    def check_size(self, height: int, width: int, *, clip_id: str) -> None:
        """Raise UsageError where frames are smaller than the crop."""
        if self.window and (height < self.window[0] or width < self.window[1]):
            raise UsageError(
                f"crop {self.window[0]}x{self.window[1]} is larger than the stored frames, "
                f"{height}x{width} in clip {clip_id!r} (height x width): lower crop, or build larger frames"
            )

    def random_crop(self, height: tf.Tensor, width: tf.Tensor, *, uniform: tf.Tensor) -> Crop:
        """A window anywhere in a picture, mirrored or not.

        Args:
            height: of the picture, int64.
            width: of the picture, int64.
            uniform: three random numbers in [0, 1): for top, left and mirroring.
        """
        rows, columns = self.window or (height, width)
        top_left = uniform_below(tf.stack([height - rows, width - columns]) + 1, uniform[:2])
        return Crop(_window(*tf.unstack(top_left), rows, columns), uniform[2] < 0.5 if self.flip else None)

    def fixed_crops(self, height: tf.Tensor, width: tf.Tensor) -> list[Crop]:
        """The ``num_crops`` windows of evaluation in a picture of this size, int64 both."""
        rows, columns = self.window or (height, width)
        bottom, right = height - rows, width - columns
        middle = bottom // 2, right // 2
        if self.num_crops == 1:
            places = [middle]
        elif self.num_crops == 3:
            wide, zero = width >= height, tf.zeros_like(height)
            begin = tf.where(wide, middle[0], zero), tf.where(wide, zero, middle[1])
            end = tf.where(wide, middle[0], bottom), tf.where(wide, right, middle[1])
            places = [begin, middle, end]
        else:
            places = [middle, (0, 0), (0, right), (bottom, 0), (bottom, right)]
        crops = [Crop(_window(top, left, rows, columns)) for top, left in places]
        if self.num_crops == 10:
            crops += [Crop(crop.window, tf.constant(True)) for crop in crops]
        return crops

    def decode(self, jpegs: tf.Tensor, area: tf.Tensor, *, count: int, accurate: bool = False) -> tf.Tensor:
        """Pixels [count, h, w, 3] uint8 RGB of ``count`` JPEG files.

        Args:
            jpegs: the files, of pictures of one size.
            area: [top, left, height, width] of what to decode.
            count: how many there are.
            accurate: whether to spend time on the last bit, which TensorFlow's own choice gives up.
        """
        method = "INTEGER_ACCURATE" if accurate else ""

        # Only the blocks of the area go through the inverse transform. All pixels are those of the whole frame
        # but the outermost columns, where the chroma lacks a neighbour to be smoothed with.
        def decoded(jpeg: tf.Tensor) -> tf.Tensor:
            return tf.io.decode_and_crop_jpeg(jpeg, area, channels=3, dct_method=method)

        if count <= UNROLLED_FRAMES:
            return tf.stack([decoded(jpeg) for jpeg in tf.unstack(jpegs, count)])
        return tf.map_fn(decoded, jpegs, fn_output_signature=tf.TensorSpec([None, None, 3], tf.uint8))

    def converted(self, pixels: tf.Tensor) -> tf.Tensor:
        """Uint8 pixels in the chosen dtype and scale."""
        if self.dtype == "uint8":
            return pixels
        scaled = tf.cast(pixels, tf.float32) / 255.0
        return (scaled - (self.mean or (0.0, 0.0, 0.0))) / (self.std or (1.0, 1.0, 1.0))


def _window(*numbers: tf.Tensor | int) -> tf.Tensor:
    """[top, left, height, width] as int32."""
    return tf.stack([tf.cast(number, tf.int32) for number in numbers])
