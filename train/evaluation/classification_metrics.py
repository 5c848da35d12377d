"""Figures of a classifier, from its probabilities: plain functions of arrays.

``truth`` is [clips, classes] of bools: which classes each clip has, one of them or any number.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

Labels = NDArray[np.int64]
Truth = NDArray[np.bool_]
Probabilities = NDArray[np.float32]


def ranks(probabilities: Probabilities, truth: Truth) -> Labels:
    """Place of each clip's most probable true class among all, 0 for the first; of equals, the lower class comes first.

    A clip that has no class gets as many as there are classes.

    >>> ranks(np.array([[0.2, 0.5, 0.3]], np.float32), np.array([[True, False, True]])).tolist()
    [1]
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    hits = np.take_along_axis(truth, order, axis=1)
    place: Labels = np.where(hits.any(axis=1), hits.argmax(axis=1), truth.shape[1])
    return place


def top(place: Labels, k: int) -> float:
    """Share of clips that have a true class among the ``k`` most probable.

    >>> top(np.array([0, 1, 5]), 2)
    0.6666666666666666
    """
    return float((place < k).mean())


def confusion(truth: Truth, predicted: Truth) -> Labels:
    """Counts [class, class] of the clips that have the first and were said to have the second.

    >>> confusion(np.eye(2, dtype=bool)[[0, 1, 1]], np.eye(2, dtype=bool)[[0, 0, 1]]).tolist()
    [[1, 0], [1, 1]]
    """
    # whole numbers up to 2 ** 53 are exact in float64, which BLAS multiplies and integers it does not
    return (truth.T.astype(np.float64) @ predicted.astype(np.float64)).astype(np.int64)


def class_accuracy(truth: Truth, predicted: Truth) -> dict[int, float]:
    """Share of each class's clips that were recognised; classes without clips are left out.

    >>> class_accuracy(np.eye(2, dtype=bool)[[0, 0]], np.eye(2, dtype=bool)[[0, 1]])
    {0: 0.5}
    """
    totals = truth.sum(axis=0)
    found = (truth & predicted).sum(axis=0)
    return {k: float(found[k] / totals[k]) for k in range(truth.shape[1]) if totals[k]}


def average_precision(probabilities: Probabilities, truth: Truth) -> dict[int, float]:
    """Area under each class's curve of precision over recall, as scikit-learn sums it: without interpolation.

    Classes without clips have none and are left out. The mean of the others is mAP.
    """
    return {
        k: float(average_precision_score(truth[:, k], probabilities[:, k]))
        for k in range(truth.shape[1])
        if truth[:, k].any()
    }
