"""Measuring a trained model on a split."""

import csv
import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelmill.datasets import storage
from reelmill.datasets.errors import DatasetError
from reelmill.train.evaluation import classification_metrics
from reelmill.train.loading.clip_sampling import Sampling
from reelmill.train.loading.loader import Loader
from reelmill.train.loading.order import Order
from reelmill.train.loading.record_reader import reading
from reelmill.train.loading.streams.image_ops import Picture
from reelmill.train.models import saving
from reelmill.train.options import DEFAULT_RUN, EvaluateOptions

DECIDED = 0.5
"""Probability from which a clip that may have several labels is said to have one."""
NONE = "(none)"
"""Stands in the table of predictions where a clip has no label, or was said to have none."""
NAMED_CLASSES, COUNTED_CLASSES = 100, 40
"""Up to so many, the picture of the confusion matrix names the classes and shows the counts."""
UNNAMED_INCHES = 20.0
"""Side of the picture where there are more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How a model did on a split."""

    class_names: list[str]
    """What labels stand for."""
    clip_ids: list[str]
    """Of every clip, in the order of the index."""
    actual: NDArray[Any]
    """[clips] int64, the label of every clip; or [clips, classes] of 0 and 1, where it may have several."""
    probabilities: NDArray[np.float32]
    """[clips, classes], averaged over a clip's views."""

    @property
    def multi(self) -> bool:
        """Whether a clip may have several labels."""
        return self.actual.ndim == 2

    @property
    def truth(self) -> classification_metrics.Truth:
        """[clips, classes] of bools: the classes of every clip."""
        return self.actual > 0 if self.multi else self._hot(self.actual)

    @property
    def predicted(self) -> classification_metrics.Truth:
        """[clips, classes] of bools: its most probable class, or where it may have several, all from 0.5 on."""
        return self.probabilities >= DECIDED if self.multi else self._hot(self.probabilities.argmax(axis=1))

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Counts [actual, predicted]: one per clip, or per class that it has with each it was said to have."""
        return classification_metrics.confusion(self.truth, self.predicted)

    def _hot(self, labels: NDArray[np.int64]) -> classification_metrics.Truth:
        hot: classification_metrics.Truth = labels[:, None] == np.arange(len(self.class_names))
        return hot

    def metrics(self) -> dict[str, Any]:
        """Content of the metrics file. Classes without clips in the split count nowhere but in their number."""
        truth = self.truth
        labelled = truth.any(axis=1)
        place = classification_metrics.ranks(self.probabilities[labelled], truth[labelled])
        counts = truth.sum(axis=0)
        if self.multi:
            name, by_class = (
                "average_precision",
                classification_metrics.average_precision(self.probabilities, truth),
            )
        else:
            name, by_class = "class_accuracy", classification_metrics.class_accuracy(truth, self.predicted)
        return {
            "clips": len(self.clip_ids),
            "top1": round(classification_metrics.top(place, 1), saving.DIGITS),
            "top5": round(classification_metrics.top(place, 5), saving.DIGITS),
            "map" if self.multi else "mean_class_accuracy": round(
                float(np.mean(list(by_class.values()))), saving.DIGITS
            ),
            "classes_without_clips": int((counts == 0).sum()),
            name: {self.class_names[k]: round(value, saving.DIGITS) for k, value in by_class.items()},
            "class_clips": {self.class_names[k]: int(counts[k]) for k in by_class},
        }

    def predictions_csv(self) -> bytes:
        """One row per clip, or where it may have several labels, per pair of one it has and one it was said to have.

        ``dvc plots`` shows it with the template ``confusion``.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["clip_id", "actual", "predicted"])
        for clip_id, has, said in zip(
            self.clip_ids, self._names(self.truth), self._names(self.predicted), strict=True
        ):
            writer.writerows([clip_id, *pair] for pair in itertools.product(has or [NONE], said or [NONE]))
        return text.getvalue().encode()

    def _names(self, hot: classification_metrics.Truth) -> Iterator[list[str]]:
        return ([self.class_names[k] for k in np.flatnonzero(row)] for row in hot)


def evaluate(dataset: str, options: EvaluateOptions, *, run: str = DEFAULT_RUN) -> Evaluation:
    """Measure a model and write metrics, predictions and the picture of the confusion matrix.

    Args:
        dataset: path or URL of a dataset.
        options: what to do.
        run: whose model to measure, and what the files are named by.

    Raises:
        UsageError: there is no model, or an option makes no sense for this dataset.
        DatasetError: the model was trained for other classes, no clip has a label, or something on disk is damaged.
    """
    folder = options.model_folder(run)
    model, info = saving.load(folder)
    loader = Loader(
        dataset,
        split=options.split,
        columns=info.columns,
        sampling=Sampling(clip_frames=info.clip_frames, stride=info.stride, num_clips=options.num_clips),
        picture=Picture(crop=info.crop, num_crops=options.num_crops),
        order=Order(batch_size=options.batch_size),
        labels=info.labels,
        service=options.service,
        memory_mib=options.memory_mib,
    )
    if info.class_names != loader.class_names:
        raise DatasetError(
            f"the model in {folder!r} was trained for {_few(info.class_names)}; "
            f"{dataset!r} has {_few(loader.class_names)}: train again"
        )
    evaluation = _measure(model, loader)
    if not evaluation.truth.any():
        raise DatasetError(f"no clip of split {options.split!r} has a label: there is nothing to measure")
    storage.write_bytes(options.metrics_file(run), saving.to_json(evaluation.metrics()))
    storage.write_bytes(options.predictions_file(run), evaluation.predictions_csv())
    clips = evaluation.truth.sum(axis=0)
    storage.write_bytes(
        options.confusion_file(run), confusion_png(evaluation.confusion, loader.class_names, clips=clips)
    )
    return evaluation


def _measure(model: Any, loader: Loader) -> Evaluation:
    clip_ids: list[str] = []
    actual: list[NDArray[Any]] = []
    probabilities: list[NDArray[np.float32]] = []
    with reading():
        for batch in loader.dataset():
            # one view after the other: the model is compiled for one shape, and holds no more than one batch
            views = [
                {key: batch[key] if loader.views == 1 else batch[key][:, view] for key in loader.keys}
                for view in range(loader.views)
            ]
            probabilities.append(np.mean([model.predict_on_batch(view) for view in views], axis=0))
            actual.append(batch["label"].numpy())
            clip_ids += [name.decode() for name in batch["clip_id"].numpy()]
    return Evaluation(
        class_names=loader.class_names,
        clip_ids=clip_ids,
        actual=np.concatenate(actual),
        probabilities=np.concatenate(probabilities),
    )


def _few(names: list[str]) -> str:
    return f"{len(names)} classes ({', '.join(names[:3])}{' ...' if len(names) > 3 else ''})"


def confusion_png(
    counts: NDArray[np.int64], names: list[str], *, clips: NDArray[np.int64] | None = None
) -> bytes:
    """A picture of the confusion matrix; equal counts give equal bytes.

    Args:
        counts: [actual, predicted].
        names: of the classes.
        clips: of each class, which its row is divided by; None: the row's sum.
    """
    from matplotlib.figure import Figure

    named = len(names) <= NAMED_CLASSES
    side = max(4.0, 0.35 * len(names) + 2) if named else UNNAMED_INCHES
    figure = Figure(figsize=(side, side), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    totals = counts.sum(axis=1) if clips is None else clips
    shares = counts / np.maximum(totals, 1)[:, None]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if named:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="actual")
    if len(names) <= COUNTED_CLASSES:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour)
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
