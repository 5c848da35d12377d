"""Reelmill: raw video collections in, versioned shards out, and a loader that never lets a GPU wait."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reelmill.datasets.dataset import Dataset

__version__ = version("reelmill")
__all__ = ["__version__", "load", "open"]


def open(dataset: str) -> "Dataset":  # noqa: A001 - used as reelmill.open, like gzip.open
    """Open a dataset: class names, splits, columns, numbers of clips and of steps.

    Args:
        dataset: path or URL of a dataset that ``reelmill scan`` began.

    Raises:
        DatasetError: there is no manifest, or it is damaged.
    """
    from reelmill.datasets.dataset import Dataset

    return Dataset(dataset)


def load(dataset: str, **options: Any) -> Any:
    """Read a dataset as batches; see :func:`reelmill.train.loading.loader.load` for every option.

    Args:
        dataset: path or URL of a dataset that ``reelmill frames`` built.
        **options: ``split``, ``columns``, ``clip_frames``, ``stride``, ``batch_size``, ``training``, ``seed`` ...

    Returns:
        A ``tf.data.Dataset`` of dictionaries of batched tensors.
    """
    from reelmill.train.loading.loader import load as load_dataset

    return load_dataset(dataset, **options)
