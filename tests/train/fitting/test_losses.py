"""Losses and weights against Keras' own losses and scikit-learn."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import auc as area
from sklearn.metrics import log_loss, precision_recall_curve
from sklearn.utils.class_weight import compute_sample_weight

from reelmill.datasets.errors import UsageError
from reelmill.train.fitting.losses import balanced, named, objective

NAMES = ["run", "walk", "sit"]


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_weighted_clip_counts_as_with_keras_sample_weights(random: np.random.Generator) -> None:
    label = random.integers(3, size=20)
    probabilities = random.dirichlet(np.ones(3), size=20).astype(np.float32)
    weights = named({"walk": 3.0, "sit": 0.0}, labels="single", class_names=NAMES)
    assert weights.tolist() == [1, 3, 0]
    found = float(objective("single", classes=3, weights=weights).loss(label, probabilities))
    keras_own = keras.losses.SparseCategoricalCrossentropy()
    assert found == pytest.approx(
        float(keras_own(label, probabilities, sample_weight=weights[label])), rel=1e-5
    )
    plain = float(objective("single", classes=3).loss(label, probabilities))
    assert plain == pytest.approx(log_loss(label, probabilities, labels=range(3)), rel=1e-5)


def test_each_class_of_several_labels_has_its_weight(random: np.random.Generator) -> None:
    label = random.integers(2, size=(20, 3)).astype(np.float32)
    probabilities = random.uniform(0.01, 0.99, size=(20, 3)).astype(np.float32)
    weights = named({"walk": 3.0}, labels="multi", class_names=NAMES)
    found = float(objective("multi", classes=3, weights=weights).loss(label, probabilities))
    each = [log_loss(label[:, k], probabilities[:, k]) for k in range(3)]
    assert found == pytest.approx(np.mean([each[0], 3 * each[1], each[2]]), rel=1e-4)
    plain = float(objective("multi", classes=3).loss(label, probabilities))
    assert plain == pytest.approx(np.mean(each), rel=1e-4)
    balance = balanced([np.flatnonzero(row).tolist() for row in label], labels="multi", classes=3)
    found = float(objective("multi", classes=3, weights=balance).loss(label, probabilities))
    fair = [
        log_loss(
            label[:, k], probabilities[:, k], sample_weight=compute_sample_weight("balanced", label[:, k])
        )
        for k in range(3)
    ]
    assert found == pytest.approx(np.mean(fair), rel=1e-4)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_balanced_weights_are_scikit_learns(labels: list[int]) -> None:
    weights = balanced([[label] for label in labels], labels="single", classes=6)
    assert weights[labels].tolist() == pytest.approx(compute_sample_weight("balanced", labels).tolist())
    assert set(weights[np.setdiff1d(np.arange(6), labels)]) == {1.0}


def test_the_metric_is_the_area_under_precision_over_recall(random: np.random.Generator) -> None:
    label = random.integers(2, size=(2000, 3)).astype(np.float32)
    probabilities = (0.3 * label + 0.7 * random.uniform(size=label.shape)).astype(np.float32)
    (metric,) = objective("multi", classes=3).metrics
    metric.update_state(label, probabilities)
    areas = []
    for k in range(3):
        precision, recall, _ = precision_recall_curve(label[:, k], probabilities[:, k])
        areas.append(area(recall, precision))
    assert float(metric.result()) == pytest.approx(np.mean(areas), abs=0.005)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"fly": 1.0}, "class_weights: there is no class 'fly'; there is run, walk, sit"),
        ({"run": -1.0}, "class_weights: run = -1.0 must be a number from 0 on"),
        ({"run": float("nan")}, "class_weights: run = nan must be"),
        ({"run": float("inf")}, "class_weights: run = inf must be"),
    ],
)
def test_wrong_weights_are_explained(weights: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        named(weights, labels="single", class_names=NAMES)
    assert said in str(caught.value)
