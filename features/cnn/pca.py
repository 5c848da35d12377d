"""Principal components of features: fitted over many clips, applied to each step.

The method and its numbers are YouTube-8M's: features less their mean, projected on the leading eigenvectors of
their covariance and, to whiten them, divided by the square root of ``eigenvalue + 1e-4`` (Abu-El-Haija et al. 2016;
``pca_features`` of MediaPipe's ``feature_extractor``).
"""

import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelmill.datasets import storage
from reelmill.datasets.errors import UsageError

WHITENING_BIAS = 1e-4
"""Added to the eigenvalues before the square root, so that directions without variance do not explode."""
_NAMES = ("mean", "components", "eigenvalues")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pca:
    """Principal components of features with ``d`` values, the ``k`` strongest first."""

    mean: NDArray[np.float32]
    """[d]"""
    components: NDArray[np.float32]
    """[k, d], rows orthonormal."""
    eigenvalues: NDArray[np.float32]
    """[k] variances along the components, falling."""

    def matrix(self, *, whiten: bool) -> NDArray[np.float32]:
        """[d, k] float32, with which ``(x - mean) @ matrix`` are the components of ``x``."""
        scale = np.sqrt(self.eigenvalues + WHITENING_BIAS) if whiten else np.ones(len(self.eigenvalues))
        return np.ascontiguousarray((self.components / scale[:, None]).T, np.float32)


def apply_pca(features: NDArray[np.floating[Any]], pca: Pca, *, whiten: bool = True) -> NDArray[np.float32]:
    """Components of features: [..., d] becomes [..., k] float32."""
    centred = features.astype(np.float32) - pca.mean
    return np.asarray(centred @ pca.matrix(whiten=whiten), np.float32)


def fit_pca(batches: Iterable[NDArray[np.floating[Any]]], *, components: int) -> Pca:
    """Principal components of many features, read once, in memory for one d x d matrix.

    Sums in float64, in the order given: the same batches give the same components. The sign of a component is
    that which makes its largest weight positive.

    Args:
        batches: arrays [n, d] of any number of rows, as the features of one clip.
        components: how many to keep, 1 .. d.

    Raises:
        UsageError: fewer than two rows, rows of different lengths, values that are not finite, or more
            components than values.
    """
    count, shift = 0, np.zeros(0)
    total, products = np.zeros(0), np.zeros((0, 0))
    for batch in batches:
        rows = np.asarray(batch, np.float64)
        if rows.ndim != 2 or (count and rows.shape[1] != len(shift)):
            raise UsageError(f"features of the shape {rows.shape}: PCA needs rows of one length")
        if not np.isfinite(rows).all():
            raise UsageError("features with values that are not finite: PCA cannot be fitted to them")
        if not len(rows):
            continue
        if not count:
            shift = rows.mean(axis=0)  # far from zero, sums of squares would lose digits
            total, products = np.zeros_like(shift), np.zeros((len(shift), len(shift)))
        rows = rows - shift
        count += len(rows)
        total += rows.sum(axis=0)
        products += rows.T @ rows
    if count < 2:
        raise UsageError(f"PCA of {count} feature vectors: it needs two at least")
    if not 1 <= components <= len(shift):
        raise UsageError(f"components = {components}: features of {len(shift)} values have 1 to {len(shift)}")
    mean = total / count
    covariance = (products - count * np.outer(mean, mean)) / (count - 1)
    values, vectors = np.linalg.eigh(covariance)
    strongest = vectors[:, ::-1][:, :components].T
    largest = np.take_along_axis(strongest, np.abs(strongest).argmax(axis=1)[:, None], axis=1)
    return Pca(
        mean=(mean + shift).astype(np.float32),
        components=(strongest * np.where(largest < 0, -1, 1)).astype(np.float32),
        eigenvalues=values[::-1][:components].clip(0).astype(np.float32),
    )


def save_pca(pca: Pca, path: str) -> None:
    """Write components to a .npz file; equal components give equal bytes."""
    content = io.BytesIO()
    np.savez(content, **{name: getattr(pca, name) for name in _NAMES})
    storage.write_bytes(path, content.getvalue())


def load_pca(path: str) -> Pca:
    """Read components from a .npz file with ``mean`` [d], ``components`` [k, d] and ``eigenvalues`` [k].

    Raises:
        UsageError: the file is missing, or is not that.
    """
    try:
        with np.load(io.BytesIO(storage.read_bytes(path)), allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name], np.float32) for name in _NAMES}
    except FileNotFoundError:
        raise UsageError(f"pca = {path!r}: there is no such file") from None
    except KeyError as error:
        raise UsageError(f"pca = {path!r}: {error.args[0]}") from None
    except (ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError):
        raise UsageError(f"pca = {path!r} is no .npz file of {', '.join(_NAMES)}") from None
    shapes = [arrays[name].shape for name in _NAMES]
    if len(shapes[1]) != 2 or shapes[0] != shapes[1][1:] or shapes[2] != shapes[1][:1]:
        raise UsageError(
            f"pca = {path!r}: shapes {shapes} instead of [d], [k, d], [k] for {', '.join(_NAMES)}"
        )
    if not all(np.isfinite(array).all() for array in arrays.values()) or (arrays["eigenvalues"] < 0).any():
        raise UsageError(f"pca = {path!r}: values that are not finite, or negative eigenvalues")
    return Pca(**arrays)
