"""What is made small, and what is measured: loss and metrics for one label a clip, or several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight

from reelmill.datasets import storage
from reelmill.datasets.errors import UsageError
from reelmill.datasets.manifest import FILE_NAME, Manifest

Labels = Literal["single", "multi"]


@dataclass(frozen=True, slots=True)
class Objective:
    """For ``model.compile``."""

    loss: Any
    """A Keras loss of labels as the loader gives them and probabilities [b, classes]."""
    metrics: list[Any]
    """Keras metrics."""


def objective(labels: Labels, *, classes: int, weights: NDArray[np.float64] | None = None) -> Objective:
    """Cross-entropy and accuracy for single labels; for several, binary cross-entropy and ``auc_pr``.

    That is the area under the curve of precision over recall, averaged over classes; a class that no clip has
    counts as 0. Keras takes it at 200 thresholds; ``reelmill evaluate`` computes the exact mean average precision.

    Args:
        labels: ``single`` or ``multi``.
        classes: how many there are.
        weights: what each class counts for, as :func:`balanced` or :func:`named` give them; None: all the same.
    """
    if labels == "single":
        loss = keras.losses.SparseCategoricalCrossentropy() if weights is None else WeightedSingle(weights)
        return Objective(loss, [keras.metrics.SparseCategoricalAccuracy(name="accuracy")])
    loss = keras.losses.BinaryCrossentropy() if weights is None else WeightedMulti(weights)
    metric = keras.metrics.AUC(curve="PR", multi_label=True, num_labels=classes, name="auc_pr")
    return Objective(loss, [metric])


class WeightedSingle(keras.losses.Loss):  # type: ignore[misc] # Keras ships no types
    """Categorical cross-entropy, each clip's times the weight of its class, over the number of clips.

    Args:
        weights: [classes].
    """

    def __init__(self, weights: NDArray[np.float64]) -> None:
        super().__init__(name="weighted")
        self._weights = weights.astype(np.float32)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """[b] of labels [b] and probabilities [b, classes]."""
        each = keras.losses.sparse_categorical_crossentropy(y_true, y_pred)
        return each * keras.ops.take(self._weights, keras.ops.cast(y_true, "int32"))


class WeightedMulti(keras.losses.Loss):  # type: ignore[misc]
    """Binary cross-entropy, that of each class and clip times the weight of the class's no or yes.

    Args:
        weights: [2, classes]: of clips without the label, and of clips with it.
    """

    def __init__(self, weights: NDArray[np.float64]) -> None:
        super().__init__(name="weighted")
        self._no, self._yes = weights.astype(np.float32)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """[b] of labels [b, classes] of 0 and 1, and probabilities [b, classes]."""
        weights = y_true * self._yes + (1 - y_true) * self._no
        return keras.ops.mean(weights * keras.ops.binary_crossentropy(y_true, y_pred), axis=-1)


def balanced(label_lists: Sequence[Sequence[int]], *, labels: Labels, classes: int) -> NDArray[np.float64]:
    """Weights by scikit-learn's formula, clips / (classes * clips of the class), of the classes that occur.

    Args:
        label_lists: labels of each clip.
        labels: ``single``: one weight per class; ``multi``: each class's no and yes are weighed against each other.
        classes: how many there are.

    Returns:
        [classes], or [2, classes] for ``multi``. A class that does not occur has 1.

    >>> balanced([[0], [0], [0], [1]], labels="single", classes=2).round(2).tolist()
    [0.67, 2.0]
    """
    if labels == "single":
        return _of_present(np.array([own[0] for own in label_lists]), classes)
    hot = np.zeros((len(label_lists), classes), np.int64)
    for row, own in zip(hot, label_lists, strict=True):
        row[list(own)] = 1
    return np.stack([_of_present(column, 2) for column in hot.T], axis=1)


def _of_present(label: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    weights, present = np.ones(classes), np.unique(label)
    weights[present] = compute_class_weight("balanced", classes=present, y=label)
    return weights


def named(weights: Mapping[str, float], *, labels: Labels, class_names: Sequence[str]) -> NDArray[np.float64]:
    """Weights by class name, 1 for those not named; shapes as :func:`balanced`.

    Raises:
        UsageError: there is no such class, or a weight is below 0.
    """
    for name, weight in weights.items():
        if name not in class_names:
            there = ", ".join(class_names[:8]) + (" ..." if len(class_names) > 8 else "")
            raise UsageError(f"class_weights: there is no class {name!r}; there is {there}")
        if not 0 <= weight < float("inf"):
            raise UsageError(f"class_weights: {name} = {weight} must be a number from 0 on")
    each = np.array([weights.get(name, 1.0) for name in class_names])
    return each if labels == "single" else np.stack([each, each])


def labels_of(dataset: str, clip_ids: Any) -> list[list[int]]:
    """Labels of these clips, a pyarrow array of ids, from the manifest. Raises DatasetError."""
    wanted = set(clip_ids.to_pylist())
    with Manifest(storage.join(dataset, FILE_NAME)) as manifest:
        return [
            own
            for table in manifest.tables(["clip_id", "label_index"])
            for clip_id, own in zip(*(table[c].to_pylist() for c in ("clip_id", "label_index")), strict=True)
            if clip_id in wanted
        ]
