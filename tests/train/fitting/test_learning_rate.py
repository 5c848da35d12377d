"""Step sizes against Keras' own schedules, and against what options.py promises."""

from itertools import pairwise

import keras
import pytest

from reelmill.datasets.errors import UsageError
from reelmill.train.fitting.learning_rate import step_size
from reelmill.train.options import TrainOptions

STEPS = 5


def sizes(**options: object) -> list[float]:
    """Of every step of a training, and of the one after."""
    chosen = TrainOptions.model_validate({"epochs": 6, "learning_rate": 0.5, **options})
    found = step_size(chosen, steps_per_epoch=STEPS)
    if isinstance(found, float):
        return [found] * (6 * STEPS + 1)
    return [float(found(keras.ops.convert_to_tensor(i, "int64"))) for i in range(6 * STEPS + 1)]


def test_constant() -> None:
    assert sizes() == [0.5] * 31


def test_cosine_with_a_warmup_is_what_keras_has() -> None:
    keras_own = keras.optimizers.schedules.CosineDecay(0.0, 20, warmup_target=0.5, warmup_steps=10)
    assert sizes(schedule="cosine", warmup_epochs=2) == pytest.approx(
        [float(keras_own(i)) for i in range(31)]
    )
    assert sizes(schedule="cosine")[-1] == pytest.approx(0, abs=1e-6)


def test_exponential_ends_at_one_percent() -> None:
    found = sizes(schedule="exponential")
    ratios = [after / before for before, after in pairwise(found)]
    assert (found[0], found[-1]) == pytest.approx((0.5, 0.005))
    assert ratios == pytest.approx([ratios[0]] * 30)


def test_steps_to_a_tenth_at_each_third() -> None:
    found = sizes(schedule="step", warmup_epochs=3)
    assert found[:15] == pytest.approx([0.5 * i / 15 for i in range(15)])
    # Keras' boundaries belong to the piece before
    assert found[15:] == pytest.approx([0.5] * 6 + [0.05] * 5 + [0.005] * 5)


def test_warmup_before_a_constant() -> None:
    assert sizes(warmup_epochs=1) == pytest.approx([0.1 * i for i in range(5)] + [0.5] * 26)


def test_a_warmup_that_leaves_nothing_is_an_error() -> None:
    with pytest.raises(UsageError, match="warmup_epochs 6 must be below epochs 6"):
        sizes(warmup_epochs=6)
