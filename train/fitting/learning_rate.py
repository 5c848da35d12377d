"""Step sizes as functions of the step: what an interrupted training goes on with follows from its step alone."""

from typing import Any

import keras

from reelmill.datasets.errors import UsageError
from reelmill.train.options import TrainOptions

LAST_SHARE = 0.01
"""Of the largest step size, what the exponential schedule ends with."""


class Warmup(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc] # Keras ships no types
    """A straight line from 0 to the first step size of another schedule, which begins then (Goyal et al. 2017).

    Args:
        after: the schedule, whose first step is the one after the warm-up.
        steps: length of the warm-up; at step ``steps`` the first step size is reached.
    """

    def __init__(self, after: Any, *, steps: int) -> None:
        self.after = after
        self.steps = steps

    def __call__(self, step: Any) -> Any:
        """Step size of a step, both scalars."""
        done = keras.ops.cast(step, "float32") / self.steps
        after = self.after(keras.ops.maximum(step - self.steps, 0))
        return keras.ops.where(done < 1, done * self.after(0), after)

    def get_config(self) -> dict[str, Any]:
        """What it was made with."""
        return {"after": keras.saving.serialize_keras_object(self.after), "steps": self.steps}


def step_size(options: TrainOptions, *, steps_per_epoch: int) -> Any:
    """What the optimizer takes as its ``learning_rate``: a number, or a schedule.

    Raises:
        UsageError: the warm-up leaves no epoch for the schedule.
    """
    if options.warmup_epochs >= options.epochs:
        raise UsageError(
            f"warmup_epochs {options.warmup_epochs} must be below epochs {options.epochs}: the schedule comes after"
        )
    warmup = options.warmup_epochs * steps_per_epoch
    steps = options.epochs * steps_per_epoch - warmup
    after = _after(options, steps=steps)
    return Warmup(after, steps=warmup) if warmup else after


def _after(options: TrainOptions, *, steps: int) -> Any:
    largest, schedules = options.learning_rate, keras.optimizers.schedules
    match options.schedule:
        case "constant" if not options.warmup_epochs:
            return largest
        case "constant":
            return schedules.PiecewiseConstantDecay([steps], [largest, largest])
        case "cosine":
            return schedules.CosineDecay(largest, decay_steps=steps)
        case "exponential":
            return schedules.ExponentialDecay(largest, decay_steps=steps, decay_rate=LAST_SHARE)
        case "step":
            thirds = [steps // 3, 2 * steps // 3]
            return schedules.PiecewiseConstantDecay(thirds, [largest, largest / 10, largest / 100])
