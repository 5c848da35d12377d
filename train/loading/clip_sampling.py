"""Which frames of a clip are taken."""

from dataclasses import dataclass

import tensorflow as tf

from reelmill.datasets.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """A window of evenly spaced frames: at a random place in training, at fixed places in evaluation.

    A clip with fewer frames than the window spans is looped: after its last frame comes its first.
    """

    clip_frames: int = 16
    """Frames taken."""
    stride: int = 2
    """Distance from one taken frame to the next, in stored frames."""
    num_clips: int = 1
    """Windows per clip in evaluation: one in the middle, or several spread from the first to the last frame."""
    waveform_samples: int | None = None
    """Consecutive samples of sound to take from the time of a window's first frame on."""

    def __post_init__(self) -> None:
        for name in ("clip_frames", "stride", "num_clips"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)} must be at least 1")
        if self.waveform_samples is not None and self.waveform_samples < 1:
            raise UsageError(f"waveform_samples {self.waveform_samples} must be at least 1")

    @property
    def span(self) -> int:
        """Stored frames from the first taken to the last, both included."""
        return (self.clip_frames - 1) * self.stride + 1

    def random_start(self, steps: tf.Tensor, *, uniform: tf.Tensor) -> tf.Tensor:
        """First frame of a window in a clip of ``steps`` frames, for a random number in [0, 1): int64 [1]."""
        return [uniform_below(self._slack(steps) + 1, uniform)]

    def spread_starts(self, steps: tf.Tensor) -> tf.Tensor:
        """First frames of ``num_clips`` windows, evenly spread, int64 [k]; a single one lies in the middle."""
        if self.num_clips == 1:
            return [self._slack(steps) // 2]
        return self._slack(steps) * tf.range(self.num_clips, dtype=tf.int64) // (self.num_clips - 1)

    def frames(self, starts: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        """Numbers of the taken frames, int64 [k, t]."""
        inside = tf.range(self.clip_frames, dtype=tf.int64) * self.stride
        return (tf.reshape(starts, [-1, 1]) + inside[None]) % steps

    def _slack(self, steps: tf.Tensor) -> tf.Tensor:
        return tf.maximum(steps - self.span, 0)


def aligned(times: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
    """For each time wanted the last step that has begun by then, or the first step where none has.

    Args:
        times: of a column's steps, int64 [n], rising.
        wanted: int64 [k, t].

    Returns:
        Numbers of steps, int64 [k, t].
    """
    begun = tf.searchsorted(times, tf.reshape(wanted, [-1]), side="right", out_type=tf.int64)
    return tf.reshape(tf.maximum(begun - 1, 0), tf.shape(wanted))


def uniform_below(bound: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    """An int64 of 0 .. bound-1 from a float64 in [0, 1)."""
    return tf.minimum(tf.cast(uniform * tf.cast(bound, tf.float64), tf.int64), bound - 1)
