"""What an interrupted training goes on from: one file with all that the rest of the training depends on."""

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from reelmill.datasets import storage
from reelmill.datasets.errors import DatasetError
from reelmill.train.fitting.strategies import Array, Replicas

FILE_NAME = "state.npz"
DESCRIPTION = "description"


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a training has come."""

    step: int = 0
    """Global batches learned from, since the beginning."""
    history: list[dict[str, float]] = field(default_factory=list)
    """Figures of every epoch that has ended."""
    extras: list[dict[str, float]] = field(default_factory=list)
    """Of each of them, what differs from run to run or follows from the options, for TensorBoard."""
    seconds: float = 0.0
    """Time taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A training at one step."""

    subject: dict[str, Any]
    """All that decides what comes of the training; where it has changed, the checkpoint is of another one."""
    progress: Progress
    """How far it has come."""
    shared: list[Array]
    """What is the same on every replica: weights and the optimizer's state."""
    own: list[Array]
    """What each replica may have of its own, [replicas, ...], or [1, ...] where it is the same on all: statistics of
    batches, states of random numbers, and frozen weights."""
    sums: list[Array]
    """What each replica adds up, [replicas, ...]: the metrics of the epoch so far."""

    def changed(self, subject: dict[str, Any]) -> list[str]:
        """Names of what differs in ``subject``.

        >>> empty = Checkpoint(subject={"a": 1, "b": 2}, progress=Progress(), shared=[], own=[], sums=[])
        >>> empty.changed({"a": 1, "b": 3, "c": 4})
        ['b', 'c']
        """
        there = json.loads(json.dumps(subject))
        return [name for name in self.subject | there if self.subject.get(name) != there.get(name)]


def save(checkpoint: Checkpoint, folder: str) -> None:
    """Write a checkpoint in the place of the one before; at any moment one of the two is there, and whole."""
    about = {"subject": checkpoint.subject, "progress": asdict(checkpoint.progress)}
    groups = {"shared": checkpoint.shared, "own": checkpoint.own, "sums": checkpoint.sums}
    arrays = {f"{name}-{i:05d}": array for name, group in groups.items() for i, array in enumerate(group)}
    content = io.BytesIO()
    np.savez(content, **{DESCRIPTION: np.array(json.dumps(about))}, **arrays)  # type: ignore[arg-type]
    storage.write_bytes(storage.join(folder, FILE_NAME), content.getvalue())


def load(folder: str) -> Checkpoint | None:
    """The checkpoint in a folder; None where there is none.

    Raises:
        DatasetError: the file is damaged.
    """
    try:
        content = storage.read_bytes(storage.join(folder, FILE_NAME))
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:  # zip files hold checksums
            about = json.loads(str(arrays[DESCRIPTION]))
            groups = {
                group: [arrays[name] for name in sorted(arrays.files) if name.startswith(f"{group}-")]
                for group in ("shared", "own", "sums")
            }
        return Checkpoint(subject=about["subject"], progress=Progress(**about["progress"]), **groups)
    except (ValueError, TypeError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise DatasetError(
            f"the checkpoint in {folder!r} is damaged ({error}): delete the folder to start anew"
        ) from error


class State:
    """The variables of a model that is being fitted.

    Args:
        model: compiled, its optimizer built.
        metrics: those that it was compiled with.
        replicas: where it is.
    """

    def __init__(self, model: Any, metrics: Sequence[Any], replicas: Replicas) -> None:
        self._model = model
        self._metrics = metrics
        self._replicas = replicas
        self._rows = replicas.reader([*self._own(), *self._sums()])

    def take(self, subject: dict[str, Any], progress: Progress) -> Checkpoint:
        """All of them, as they are now; with several workers every one has to ask."""
        if hasattr(self._model, "jax_state_sync"):
            self._model.jax_state_sync()
        rows, own = self._rows(), len(self._own())
        return Checkpoint(
            subject=subject,
            progress=progress,
            shared=[np.asarray(variable.numpy()) for variable in self._shared()],
            own=[_once(row) for row in rows[:own]],
            sums=rows[own:],
        )

    def fits(self, checkpoint: Checkpoint) -> bool:
        """Whether the checkpoint is of a model with the same variables."""
        groups = ((self._shared(), checkpoint.shared, 0), (self._own(), checkpoint.own, 1))
        return all(
            [tuple(variable.shape) for variable in variables] == [array.shape[skip:] for array in arrays]
            for variables, arrays, skip in groups
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Set the model's own; the metrics follow by :meth:`restore_sums`, as Keras clears them at each epoch."""
        for variable, value in zip(self._shared(), checkpoint.shared, strict=True):
            variable.assign(value)
        count = self._replicas.count
        rows = [value[np.arange(count) % len(value)] for value in checkpoint.own]
        self._replicas.write(self._own(), rows)

    def restore_sums(self, checkpoint: Checkpoint) -> None:
        """Set the metrics: replicas go on with what as many before had added up, or divide it among them."""
        count = self._replicas.count
        rows = [np.stack([value[i::count].sum(axis=0) for i in range(count)]) for value in checkpoint.sums]
        self._replicas.write(self._sums(), rows)

    def _shared(self) -> list[Any]:
        return [*self._model.trainable_variables, *self._model.optimizer.variables]

    def _own(self) -> list[Any]:
        return list(self._model.non_trainable_variables)

    def _sums(self) -> list[Any]:
        tracker = self._model.metrics[0]  # of the loss
        return [variable for metric in (tracker, *self._metrics) for variable in metric.variables]


def _once(rows: Array) -> Array:
    return rows[:1] if (rows == rows[:1]).all() else rows
