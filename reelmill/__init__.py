"""Reelmill: raw video collections in, versioned shards out, and a loader that never lets a GPU wait."""

from importlib.metadata import version
from typing import Any

__version__ = version("reelmill")
__all__ = ["__version__", "load"]


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
