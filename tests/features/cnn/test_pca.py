"""Principal components against scikit-learn's, and the files that hold them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from reelmill.datasets.errors import UsageError
from reelmill.features.cnn.pca import Pca, apply_pca, fit_pca, load_pca, save_pca

Array = NDArray[np.float64]


def samples(*, rows: int = 300, values: int = 12, offset: float = 0.0, seed: int = 0) -> Array:
    """Features whose variances differ from direction to direction."""
    random = np.random.default_rng(seed)
    return random.normal(size=(rows, values)) * np.arange(1, values + 1) @ random.normal(
        size=(values, values)
    ) + (offset)


@pytest.mark.parametrize("offset", [0.0, 1e4], ids=["centred", "far from zero"])
def test_components_are_those_of_scikit_learn(offset: float) -> None:
    data = samples(offset=offset)
    ours = fit_pca(np.array_split(data, [1, 7, 100]), components=5)
    theirs = PCA(5, svd_solver="full").fit(data)
    np.testing.assert_allclose(ours.mean, theirs.mean_, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(ours.eigenvalues, theirs.explained_variance_, rtol=1e-5)
    cosines = (ours.components * theirs.components_).sum(axis=1)
    np.testing.assert_allclose(np.abs(cosines), 1, atol=1e-6)


def test_projection_is_that_of_scikit_learn() -> None:
    data = samples()
    ours, theirs = fit_pca([data], components=4), PCA(4, svd_solver="full").fit(data)
    projected, expected = apply_pca(data, ours, whiten=False), theirs.transform(data)
    np.testing.assert_allclose(np.abs(projected), np.abs(expected), rtol=1e-3, atol=1e-2)
    whitened = apply_pca(data, ours)
    np.testing.assert_allclose(whitened.std(axis=0, ddof=1), 1, atol=1e-4)
    np.testing.assert_allclose(whitened, projected / np.sqrt(ours.eigenvalues + 1e-4), rtol=1e-4, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 59), max_size=5), st.integers(1, 6))
def test_how_rows_are_divided_does_not_matter(cuts: list[int], components: int) -> None:
    data = samples(rows=60, values=6)
    whole = fit_pca([data], components=components)
    parts = fit_pca(np.array_split(data, sorted(cuts)), components=components)
    np.testing.assert_allclose(parts.eigenvalues, whole.eigenvalues, rtol=1e-5)
    np.testing.assert_allclose(parts.components, whole.components, atol=1e-5)
    np.testing.assert_allclose(whole.components @ whole.components.T, np.eye(components), atol=1e-6)
    largest = np.abs(whole.components).argmax(axis=1)
    assert (np.take_along_axis(whole.components, largest[:, None], 1) > 0).all()


def test_a_file_holds_them_and_equal_ones_are_equal_files(tmp_path: Path) -> None:
    pca = fit_pca([samples()], components=3)
    for name in ("a.npz", "b.npz"):
        save_pca(pca, str(tmp_path / name))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = load_pca(str(tmp_path / "a.npz"))
    for name in ("mean", "components", "eigenvalues"):
        np.testing.assert_array_equal(getattr(again, name), getattr(pca, name))


@pytest.mark.parametrize(
    ("batches", "components", "message"),
    [
        ([], 1, "PCA of 0 feature vectors: it needs two at least"),
        ([np.zeros((1, 3))], 1, "PCA of 1 feature vectors"),
        ([np.zeros((4, 3))], 4, "components = 4: features of 3 values have 1 to 3"),
        ([np.zeros((4, 3))], 0, "components = 0"),
        ([np.zeros((4, 3)), np.zeros((4, 2))], 1, r"shape \(4, 2\): PCA needs rows of one length"),
        ([np.zeros(3)], 1, r"shape \(3,\)"),
        ([np.full((4, 3), np.nan)], 1, "not finite"),
    ],
)
def test_what_cannot_be_fitted(batches: list[Array], components: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit_pca(batches, components=components)


def test_files_that_are_no_components(tmp_path: Path) -> None:
    path = tmp_path / "pca.npz"
    with pytest.raises(UsageError, match="there is no such file"):
        load_pca(str(path))
    for content in (b"", b"PK\x03\x04 no archive", b"text"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"is no \.npz file of mean, components, eigenvalues"):
            load_pca(str(path))
    np.save(path.with_suffix(".npy"), np.zeros(3))
    with pytest.raises(UsageError, match=r"is no \.npz file"):
        load_pca(str(path.with_suffix(".npy")))
    np.savez(path, mean=np.zeros(3), components=np.zeros((2, 3)))
    with pytest.raises(UsageError, match="eigenvalues"):
        load_pca(str(path))
    np.savez(path, mean=np.zeros(3), components=np.zeros((2, 4)), eigenvalues=np.ones(2))
    with pytest.raises(UsageError, match=r"instead of \[d\], \[k, d\], \[k\]"):
        load_pca(str(path))
    np.savez(path, mean=np.zeros(3), components=np.zeros((2, 3)), eigenvalues=-np.ones(2))
    with pytest.raises(UsageError, match="negative"):
        load_pca(str(path))


def test_a_direction_without_variance_does_not_explode() -> None:
    pca = Pca(
        mean=np.zeros(2, np.float32),
        components=np.eye(2, dtype=np.float32),
        eigenvalues=np.zeros(2, np.float32),
    )
    np.testing.assert_allclose(apply_pca(np.ones((1, 2)), pca), [[100, 100]], rtol=1e-6)
