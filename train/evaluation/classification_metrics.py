"""Classification metrics as functions of arrays.

``truth`` and ``predicted`` are [clips, classes] bool: the classes that each clip has, or is predicted to have. Clips
may have one class or any number. scikit-learn's top-k accuracy is not used, because it accepts only one class per clip
and prefers the later class if probabilities are equal.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

ClassMask = NDArray[np.bool_]


def true_class_ranks(probabilities: NDArray[np.float32], truth: ClassMask) -> NDArray[np.int64]:
    """Return the rank of each clip's most probable true class, 0 for the most probable of all classes.

    If probabilities are equal, the earlier class has the better rank. A clip without a class has the rank ``classes``.

    >>> true_class_ranks(np.array([[0.2, 0.5, 0.3]], np.float32), np.array([[True, False, True]])).tolist()
    [1]
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    hits = np.take_along_axis(truth, order, axis=1)
    ranks: NDArray[np.int64] = np.where(hits.any(axis=1), hits.argmax(axis=1), truth.shape[1])
    return ranks


def confusion_counts(truth: ClassMask, predicted: ClassMask) -> NDArray[np.int64]:
    """Return the number of clips [class, class] that have the first class and are predicted to have the second.

    >>> confusion_counts(np.eye(2, dtype=bool)[[0, 1, 1]], np.eye(2, dtype=bool)[[0, 0, 1]]).tolist()
    [[1, 0], [1, 1]]
    """
    # float64 is exact up to 2 ** 53, and its product is computed by BLAS, unlike that of integers
    return (truth.T.astype(np.float64) @ predicted.astype(np.float64)).astype(np.int64)


def class_accuracy(truth: ClassMask, predicted: ClassMask) -> dict[int, float]:
    """Return the share of each class's clips that were predicted to have it; classes without clips are omitted.

    >>> class_accuracy(np.eye(2, dtype=bool)[[0, 0]], np.eye(2, dtype=bool)[[0, 1]])
    {0: 0.5}
    """
    clips, hits = truth.sum(axis=0), (truth & predicted).sum(axis=0)
    return {int(k): float(hits[k] / clips[k]) for k in np.flatnonzero(clips)}


def average_precision(probabilities: NDArray[np.float32], truth: ClassMask) -> dict[int, float]:
    """Return scikit-learn's average precision of each class; classes without clips are omitted.

    It is the area under the precision-recall curve, without interpolation. The mean over classes is mAP.
    """
    classes = np.flatnonzero(truth.any(axis=0))
    return {int(k): float(average_precision_score(truth[:, k], probabilities[:, k])) for k in classes}
