"""Learning-rate schedules. Each is a function of the step, so a resumed training needs no further state."""

from typing import Any

import keras

from reelmill.datasets.errors import UsageError
from reelmill.train.options import TrainOptions

FINAL_SHARE = 0.01
"""Final learning rate of the exponential schedule, as a share of the largest."""


class Warmup(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc] # Keras ships no types
    """Linear warm-up from 0 to the first value of another schedule, which starts afterwards (Goyal et al. 2017).

    Of Keras' own schedules only CosineDecay has a warm-up.

    Args:
        schedule: the schedule after the warm-up; it counts steps from the end of the warm-up.
        steps: length of the warm-up.
    """

    def __init__(self, schedule: Any, *, steps: int) -> None:
        self.schedule = schedule
        self.steps = steps

    def __call__(self, step: Any) -> Any:
        """Return the learning rate of a step, both scalars."""
        progress = keras.ops.cast(step, "float32") / self.steps
        after = self.schedule(keras.ops.maximum(step - self.steps, 0))
        return keras.ops.where(progress < 1, progress * self.schedule(0), after)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"schedule": keras.saving.serialize_keras_object(self.schedule), "steps": self.steps}


def learning_rate_schedule(options: TrainOptions, *, steps_per_epoch: int) -> Any:
    """Return the ``learning_rate`` of the optimizer: a number, or a Keras schedule.

    Raises:
        UsageError: the warm-up leaves no epoch for the schedule.
    """
    if options.warmup_epochs >= options.epochs:
        raise UsageError(
            f"warmup_epochs {options.warmup_epochs} must be less than epochs {options.epochs}: "
            "the schedule follows the warm-up"
        )
    warmup = options.warmup_epochs * steps_per_epoch
    if options.schedule == "constant" and not warmup:
        return options.learning_rate
    schedule = _schedule(options, steps=options.epochs * steps_per_epoch - warmup)
    return Warmup(schedule, steps=warmup) if warmup else schedule


def _schedule(options: TrainOptions, *, steps: int) -> Any:
    largest, schedules = options.learning_rate, keras.optimizers.schedules
    match options.schedule:
        case "constant":
            return schedules.ExponentialDecay(largest, decay_steps=steps, decay_rate=1.0)
        case "cosine":
            return schedules.CosineDecay(largest, decay_steps=steps)
        case "exponential":
            return schedules.ExponentialDecay(largest, decay_steps=steps, decay_rate=FINAL_SHARE)
        case "step":
            thirds = [steps // 3, 2 * steps // 3]
            return schedules.PiecewiseConstantDecay(thirds, [largest, largest / 10, largest / 100])
