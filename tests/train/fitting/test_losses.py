"""Losses and class weights, compared with Keras' own losses and scikit-learn."""

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import auc as area
from sklearn.metrics import log_loss, precision_recall_curve
from sklearn.utils.class_weight import compute_sample_weight

from reelmill.datasets.errors import UsageError
from reelmill.train.fitting.losses import balanced_class_weights, class_weights_by_name, loss_and_metrics

NAMES = ["run", "walk", "sit"]


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def loss(label: Any, probabilities: Any, *, labels: Any, weights: Any = None) -> float:
    """Return the value of the loss for three classes."""
    function, _ = loss_and_metrics(labels, classes=3, weights=weights)
    return float(function(label, probabilities))


def test_class_weights_equal_keras_sample_weights(random: np.random.Generator) -> None:
    label = random.integers(3, size=20)
    probabilities = random.dirichlet(np.ones(3), size=20).astype(np.float32)
    weights = class_weights_by_name({"walk": 3.0, "sit": 0.0}, labels="single", class_names=NAMES)
    assert weights.tolist() == [1, 3, 0]
    weighted = loss(label, probabilities, labels="single", weights=weights)
    reference = keras.losses.SparseCategoricalCrossentropy()
    assert weighted == pytest.approx(
        float(reference(label, probabilities, sample_weight=weights[label])), rel=1e-5
    )
    plain = loss(label, probabilities, labels="single")
    assert plain == pytest.approx(log_loss(label, probabilities, labels=range(3)), rel=1e-5)


def test_weights_of_several_labels_apply_to_each_class(random: np.random.Generator) -> None:
    label = random.integers(2, size=(20, 3)).astype(np.float32)
    probabilities = random.uniform(0.01, 0.99, size=(20, 3)).astype(np.float32)
    weights = class_weights_by_name({"walk": 3.0}, labels="multi", class_names=NAMES)
    weighted = loss(label, probabilities, labels="multi", weights=weights)
    losses = [log_loss(label[:, k], probabilities[:, k]) for k in range(3)]
    assert weighted == pytest.approx(np.mean([losses[0], 3 * losses[1], losses[2]]), rel=1e-4)
    plain = loss(label, probabilities, labels="multi")
    assert plain == pytest.approx(np.mean(losses), rel=1e-4)
    balanced = balanced_class_weights(
        [np.flatnonzero(row).tolist() for row in label], labels="multi", classes=3
    )
    weighted = loss(label, probabilities, labels="multi", weights=balanced)
    references = [
        log_loss(
            label[:, k], probabilities[:, k], sample_weight=compute_sample_weight("balanced", label[:, k])
        )
        for k in range(3)
    ]
    assert weighted == pytest.approx(np.mean(references), rel=1e-4)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_balanced_weights_equal_those_of_scikit_learn(labels: list[int]) -> None:
    weights = balanced_class_weights([[label] for label in labels], labels="single", classes=6)
    assert weights[labels].tolist() == pytest.approx(compute_sample_weight("balanced", labels).tolist())
    assert set(weights[np.setdiff1d(np.arange(6), labels)]) == {1.0}


def test_auc_pr_is_the_area_under_the_precision_recall_curve(random: np.random.Generator) -> None:
    label = random.integers(2, size=(2000, 3)).astype(np.float32)
    probabilities = (0.3 * label + 0.7 * random.uniform(size=label.shape)).astype(np.float32)
    _, (metric,) = loss_and_metrics("multi", classes=3)
    metric.update_state(label, probabilities)
    areas = []
    for k in range(3):
        precision, recall, _ = precision_recall_curve(label[:, k], probabilities[:, k])
        areas.append(area(recall, precision))
    assert float(metric.result()) == pytest.approx(np.mean(areas), abs=0.005)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"fly": 1.0}, "class_weights: there is no class 'fly'; the classes are run, walk, sit"),
        ({"run": -1.0}, "class_weights: run = -1.0 must be a finite number of at least 0"),
        ({"run": float("nan")}, "class_weights: run = nan must be"),
        ({"run": float("inf")}, "class_weights: run = inf must be"),
    ],
)
def test_invalid_class_weights_are_rejected(weights: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        class_weights_by_name(weights, labels="single", class_names=NAMES)
    assert message in str(caught.value)
