"""A run's figures for TensorBoard."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from reelmill.datasets import storage


class Curves:
    """One point per epoch and figure, in the folders and under the names that Keras' own callback uses.

    That callback appends to what earlier runs left. This begins anew, and a training that was interrupted gives
    it the epochs before: the curves are those of one training.

    Args:
        folder: for the files; what is in it is removed.
    """

    def __init__(self, folder: str) -> None:
        storage.remove_folder(folder)
        self._folder = folder
        self._writers: dict[str, Any] = {}

    def add(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Write an epoch's figures: ``val_x`` is ``epoch_x`` of the run ``validation``."""
        for name, value in figures.items():
            part = "validation" if name.startswith("val_") else "train"
            if part not in self._writers:
                self._writers[part] = tf.summary.create_file_writer(storage.join(self._folder, part))
            with self._writers[part].as_default():
                tf.summary.scalar("epoch_" + name.removeprefix("val_"), value, step=epoch)
        for writer in self._writers.values():
            writer.flush()  # or an interrupted training would lose it

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
