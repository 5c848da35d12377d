"""Learning-rate schedules, compared with those of Keras and with what options.py documents."""

from itertools import pairwise

import keras
import pytest

from reelmill.datasets.errors import UsageError
from reelmill.train.fitting.learning_rate import learning_rate_schedule
from reelmill.train.options import TrainOptions

STEPS = 5


def learning_rates(**options: object) -> list[float]:
    """Learning rate of every step of a training, and of the step after the last."""
    chosen = TrainOptions.model_validate({"epochs": 6, "learning_rate": 0.5, **options})
    schedule = learning_rate_schedule(chosen, steps_per_epoch=STEPS)
    if isinstance(schedule, float):
        return [schedule] * (6 * STEPS + 1)
    return [float(schedule(keras.ops.convert_to_tensor(i, "int64"))) for i in range(6 * STEPS + 1)]


def test_constant() -> None:
    assert learning_rates() == [0.5] * 31


def test_cosine_with_warmup_equals_that_of_keras() -> None:
    reference = keras.optimizers.schedules.CosineDecay(0.0, 20, warmup_target=0.5, warmup_steps=10)
    assert learning_rates(schedule="cosine", warmup_epochs=2) == pytest.approx(
        [float(reference(i)) for i in range(31)]
    )
    assert learning_rates(schedule="cosine")[-1] == pytest.approx(0, abs=1e-6)


def test_exponential_ends_at_one_percent() -> None:
    rates = learning_rates(schedule="exponential")
    ratios = [after / before for before, after in pairwise(rates)]
    assert (rates[0], rates[-1]) == pytest.approx((0.5, 0.005))
    assert ratios == pytest.approx([ratios[0]] * 30)


def test_step_falls_to_a_tenth_at_each_third() -> None:
    rates = learning_rates(schedule="step", warmup_epochs=3)
    assert rates[:15] == pytest.approx([0.5 * i / 15 for i in range(15)])
    # Keras' boundaries belong to the piece before
    assert rates[15:] == pytest.approx([0.5] * 6 + [0.05] * 5 + [0.005] * 5)


def test_warmup_before_a_constant() -> None:
    assert learning_rates(warmup_epochs=1) == pytest.approx([0.1 * i for i in range(5)] + [0.5] * 26)


def test_warmup_must_leave_epochs_for_the_schedule() -> None:
    with pytest.raises(UsageError, match="warmup_epochs 6 must be less than epochs 6"):
        learning_rates(warmup_epochs=6)
