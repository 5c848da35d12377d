"""Classification metrics, compared with scikit-learn."""

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    multilabel_confusion_matrix,
    top_k_accuracy_score,
)

from reelmill.train.evaluation import classification_metrics

CLASSES = 6


@st.composite
def predictions(draw: Any) -> tuple[Any, Any]:
    """Probabilities [clips, classes], all different, and labels [clips]."""
    clips = draw(st.integers(1, 12))
    order = draw(st.permutations(range(clips * CLASSES)))
    probabilities = np.array(order, np.float32).reshape(clips, CLASSES) / (clips * CLASSES)
    return probabilities, draw(arrays.arrays(np.int64, clips, elements=st.integers(0, CLASSES - 1)))


def class_mask(labels: Any) -> Any:
    return labels[:, None] == np.arange(CLASSES)


@given(predictions(), st.integers(1, CLASSES - 1))
def test_top_k_accuracy_class_accuracy_and_confusion(sample: tuple[Any, Any], k: int) -> None:
    probabilities, labels = sample
    expected = top_k_accuracy_score(labels, probabilities, k=k, labels=range(CLASSES))
    ranks = classification_metrics.true_class_ranks(probabilities, class_mask(labels))
    assert (ranks < k).mean() == pytest.approx(expected)
    predicted = probabilities.argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about predicted classes that no clip has
        balanced = balanced_accuracy_score(labels, predicted)
    by_class = classification_metrics.class_accuracy(class_mask(labels), class_mask(predicted))
    assert set(by_class) == set(labels.tolist())
    assert np.mean(list(by_class.values())) == pytest.approx(balanced)
    counts = classification_metrics.confusion_counts(class_mask(labels), class_mask(predicted))
    np.testing.assert_array_equal(counts, confusion_matrix(labels, predicted, labels=range(CLASSES)))


@given(arrays.arrays(np.bool_, (9, CLASSES)), arrays.arrays(np.bool_, (9, CLASSES)))
def test_confusion_average_precision_and_ranks_of_several_labels(truth: Any, predicted: Any) -> None:
    random = np.random.default_rng(0).random((9, CLASSES), np.float32)
    counts = classification_metrics.confusion_counts(truth, predicted)
    np.testing.assert_array_equal(np.diag(counts), multilabel_confusion_matrix(truth, predicted)[:, 1, 1])
    assert counts[0, 1] == sum(a and b for a, b in zip(truth[:, 0], predicted[:, 1], strict=True))
    by_class = classification_metrics.average_precision(random, truth)
    assert set(by_class) == set(np.flatnonzero(truth.any(axis=0)))
    for k, value in by_class.items():
        assert value == pytest.approx(reference_average_precision(random[:, k], truth[:, k]))
    if truth.any(axis=0).all():
        assert np.mean(list(by_class.values())) == pytest.approx(
            average_precision_score(truth, random, average="macro")
        )
    ranks = classification_metrics.true_class_ranks(random, truth)
    for row, (p, t) in enumerate(zip(random, truth, strict=True)):
        assert ranks[row] == (sum(p > p[t].max()) if t.any() else CLASSES)


def reference_average_precision(probabilities: Any, truth: Any) -> float:
    """Mean over the clips of the class: their share among all clips of at least the same probability."""
    return float(np.mean([truth[probabilities >= p].mean() for p in probabilities[truth]]))


def test_of_equal_probabilities_the_earlier_class_is_ranked_first() -> None:
    equal = np.full((3, CLASSES), 0.5, np.float32)
    assert classification_metrics.true_class_ranks(equal, class_mask(np.array([0, 2, 5]))).tolist() == [
        0,
        2,
        5,
    ]
