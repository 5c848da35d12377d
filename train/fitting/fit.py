"""Training: a model of :mod:`reelmill.train.models`, the loader, and ``model.fit``."""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from reelmill.datasets import storage
from reelmill.datasets.column import DESCRIPTION, INDEX
from reelmill.datasets.errors import UsageError
from reelmill.train import models
from reelmill.train.fitting import checkpoint
from reelmill.train.fitting.callbacks import Restorer, Saver, interruption
from reelmill.train.fitting.epoch_logger import Watch, say
from reelmill.train.fitting.input_wait import InputMeter
from reelmill.train.fitting.learning_rate import learning_rate_schedule
from reelmill.train.fitting.losses import (
    balanced_class_weights,
    class_weights_by_name,
    loss_and_metrics,
    read_labels,
)
from reelmill.train.fitting.strategies import Replicas, open_replicas
from reelmill.train.fitting.tensorboard_curves import Curves
from reelmill.train.loading.clip_sampling import Sampling
from reelmill.train.loading.loader import Loader
from reelmill.train.loading.order import Order, Share
from reelmill.train.loading.record_reader import reading
from reelmill.train.loading.streams.image_ops import Picture
from reelmill.train.models import saving
from reelmill.train.options import DEFAULT_RUN, TrainOptions

IRRELEVANT = {
    *("out", "metrics", "plots", "checkpoints", "tensorboard", "checkpoint_steps"),
    *("memory_mib", "service", "strategy", "replicas", "deterministic"),
}
"""Options that may change between an interruption and going on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What came out of a training."""

    model: str
    """Name of the model."""
    metrics: dict[str, Any]
    """Content of the metrics file: the last epoch's figures and what the model was trained on."""
    history: list[dict[str, float]]
    """The figures of every epoch."""
    throughput: dict[str, float]
    """``clips_per_second`` from the second epoch on, where there is one, ``seconds`` in all, and ``input_wait``,
    the share of the time that the model waited for input, 0 to 1."""
    input: str
    """One line about the slower side of loading and learning."""
    chief: bool
    """Whether this process is the one of several workers that wrote the files."""


def fit(
    dataset: str,
    options: TrainOptions,
    *,
    run: str = DEFAULT_RUN,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Fitted:
    """Train a model and write it, its metrics and its history; before the end, checkpoints and TensorBoard's files.

    Args:
        dataset: path or URL of a dataset.
        options: what to do.
        run: what the files are named by.
        callbacks: Keras callbacks of one's own, called before those of the training.

    The result is a function of the dataset and the options. With ``deterministic``, TensorFlow is switched to
    deterministic operations for the whole process, and a training that was interrupted and goes on ends with the
    same bits as one that was not.

    Raises:
        UsageError: an option makes no sense for this dataset, or this machine.
        DatasetError: something on disk is not what it should be.
        KeyboardInterrupt: Ctrl-C or SIGTERM; after the step in progress, with a checkpoint of it.
    """
    if options.deterministic and keras.backend.backend() == "tensorflow":
        _be_deterministic(alone=options.strategy == "none")
    replicas = open_replicas(options)
    keras.utils.clear_session()  # or the layers' names would count those of earlier models
    keras.utils.set_random_seed(options.seed)
    data = _Data(dataset, options, replicas)
    with replicas.scope(), _precision(options.precision):
        name, model, metrics = _compiled(dataset, options, data)
    replicas.prepare(model)
    state = checkpoint.State(model, metrics, replicas)
    subject = _subject(dataset, options, name, data.train.class_names)
    folder = options.checkpoint_folder(run)
    found = _found(folder, subject, state, replicas)
    before = found.progress if found else checkpoint.Progress()
    if found:
        state.restore(found)
        epoch, step = divmod(before.step, data.steps)
        if replicas.chief and epoch < options.epochs:
            say(f"resumed at epoch {epoch + 1}, step {step} of {data.steps}")
    meter = InputMeter()
    log_dir = options.tensorboard_folder(run) if replicas.chief else None
    with _curves(log_dir) as curves, interruption() as interrupted, reading(), replicas.scope():
        watch = Watch(
            before,
            epochs=options.epochs,
            batch_size=options.batch_size,
            meter=meter,
            curves=curves,
            prints=replicas.chief and not sys.stdout.isatty(),
        )

        def save() -> None:
            taken = state.take(subject, watch.progress())
            if replicas.chief:
                checkpoint.save(taken, folder)

        saver = Saver(
            save,
            step=lambda: watch.step,
            every=options.checkpoint_steps,
            steps_per_epoch=data.steps,
            interruption=interrupted,
            saves_when_stopped=replicas.alone,
        )
        for part in _parts(before.step, steps=data.steps, epochs=options.epochs):
            restorer = [Restorer(state, found)] if found and part.steps < data.steps else []
            model.fit(
                data.training(part.first_step),
                initial_epoch=part.first_epoch,
                epochs=part.epochs,
                steps_per_epoch=part.steps,
                validation_data=data.validation(),
                validation_steps=data.validation_steps,
                callbacks=[*restorer, *callbacks, meter, watch, saver],
                verbose=1 if replicas.chief and sys.stdout.isatty() else 0,
                shuffle=False,
            )
    fitted = Fitted(
        model=name,
        metrics={
            "epochs": options.epochs,
            "examples": data.train.num_examples,
            "steps_per_epoch": data.steps,
            "weights": model.count_params(),
            **watch.history[-1],
        },
        history=watch.history,
        throughput=watch.throughput(),
        input=meter.summary(),
        chief=replicas.chief,
    )
    if replicas.chief:
        _write(fitted, options, run)
        info = saving.ModelInfo(
            model=name,
            columns=options.columns,
            class_names=data.train.class_names,
            clip_frames=options.clip_frames,
            stride=options.stride,
            crop=options.crop,
            labels=options.labels,
            arguments=options.arguments,
        )
        # without the optimizer, which takes twice the room of the weights and is of no use any more
        saving.save(keras.Model(model.input, model.output, name=model.name), info, options.model_folder(run))
        storage.remove_folder(folder)
    return fitted


class _Data:
    """The splits that a training reads."""

    def __init__(self, dataset: str, options: TrainOptions, replicas: Replicas) -> None:
        self._replicas = replicas
        whole = Share(replicas=replicas.count)
        self.train = _loader(
            dataset,
            options,
            split=options.split,
            order=Order(
                batch_size=options.batch_size,
                training=True,
                seed=options.seed,
                shuffle_shards=options.shuffle_shards,
                share=whole,
            ),
        )
        """What is learned from."""
        self.steps = self.train.steps_per_epoch
        """Global batches of an epoch."""
        self._validation = None
        if options.validation_split is not None:
            order = Order(batch_size=options.batch_size, share=whole)
            self._validation = _loader(dataset, options, split=options.validation_split, order=order)
        self.validation_steps = None if self._validation is None else self._validation.steps_per_epoch
        """Global batches of the split to measure."""
        self.element_spec = _pairs(self.train).element_spec[0]
        """Of what the model gets, by name."""

    def training(self, first_step: int) -> Any:
        """For ``fit``, from a step on."""
        loader = self.train
        return self._replicas.distribute(
            lambda share: _pairs(loader.ordered(replace(loader.order, share=share, start_step=first_step)))
        )

    def validation(self) -> Any:
        """For ``fit``; None where there is no split for it."""
        if self._validation is None:
            return None
        loader = self._validation
        return self._replicas.validation(
            lambda share: _pairs(loader.ordered(replace(loader.order, share=share))),
            examples=loader.num_examples,
        )


def _loader(dataset: str, options: TrainOptions, *, split: str, order: Order) -> Loader:
    return Loader(
        dataset,
        split=split,
        columns=options.columns,
        sampling=Sampling(clip_frames=options.clip_frames, stride=options.stride),
        picture=Picture(crop=options.crop, flip=options.flip),
        order=order,
        labels=options.labels,
        service=options.service,
        memory_mib=options.memory_mib,
    )


def _be_deterministic(*, alone: bool) -> None:
    tf.config.experimental.enable_op_determinism()
    if alone:  # the operations of several replicas may wait for each other
        # Where two branches of a model are at work side by side, convolutions of oneDNN get now more, now fewer
        # threads, and sum in another order: 1 in 6 gradients of two streams differed in the last bit.
        with suppress(RuntimeError):  # TensorFlow runs already
            tf.config.threading.set_inter_op_parallelism_threads(1)


def _pairs(loader: Loader) -> Any:
    options = tf.data.Options()
    # 0: as many as there are cores, whatever the model's operations have
    options.threading.private_threadpool_size = 0
    pairs = loader.dataset().map(lambda batch: ({key: batch[key] for key in loader.keys}, batch["label"]))
    return pairs.with_options(options)


def _compiled(dataset: str, options: TrainOptions, data: _Data) -> tuple[str, Any, list[Any]]:
    """Name of the model, the model, and the metrics that it was compiled with."""
    inputs = {
        key: models.InputSpec(tuple(spec.shape[1:]), spec.dtype.name)
        for key, spec in data.element_spec.items()
    }
    name, classes = options.model or models.default_model(inputs), len(data.train.class_names)
    weights = _class_weights(dataset, options, data.train)
    loss, metrics = loss_and_metrics(options.labels, classes=classes, weights=weights)
    model = models.build(
        name, inputs=inputs, classes=classes, labels=options.labels, arguments=options.arguments
    )
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate_schedule(options, steps_per_epoch=data.steps)),
        loss=loss,
        weighted_metrics=metrics,  # only clips that fill up a batch have weights
    )
    model.optimizer.build(model.trainable_variables)
    return name, model, metrics


def _class_weights(dataset: str, options: TrainOptions, loader: Loader) -> Any:
    if options.class_weights is None:
        return None
    if options.class_weights != "balanced":
        return class_weights_by_name(
            options.class_weights, labels=options.labels, class_names=loader.class_names
        )
    labels = read_labels(dataset, loader.clip_ids)
    return balanced_class_weights(labels, labels=options.labels, classes=len(loader.class_names))


@contextmanager
def _precision(policy: str) -> Iterator[None]:
    """Inside, layers are made to compute with this precision."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextmanager
def _curves(folder: str | None) -> Iterator[Curves | None]:
    curves = None if folder is None else Curves(folder)
    try:
        yield curves
    finally:
        if curves is not None:
            curves.close()


def _subject(dataset: str, options: TrainOptions, model: str, class_names: list[str]) -> dict[str, Any]:
    """All that decides what comes of a training: options, and what is in the columns."""
    content = {
        f"column {column}": hashlib.blake2b(
            b"".join(
                storage.read_bytes(storage.join(dataset, column, file)) for file in (DESCRIPTION, INDEX)
            ),
            digest_size=16,
        ).hexdigest()
        for column in options.columns
    }
    relevant = options.model_dump(exclude=IRRELEVANT)
    return {**relevant, "model": model, "classes": class_names, **content}


def _found(
    folder: str, subject: dict[str, Any], state: checkpoint.State, replicas: Replicas
) -> checkpoint.Checkpoint | None:
    """The checkpoint to go on from. Raises DatasetError where it is damaged, UsageError where workers disagree."""
    found = checkpoint.load(folder)
    if not replicas.agree(found.progress.step if found else 0):
        raise UsageError(
            f"workers found different checkpoints in {folder!r}: it must be a folder that all share"
        )
    if found is None:
        return None
    changed = found.changed(subject) or ([] if state.fits(found) else ["the model's weights"])
    if not changed:
        return found
    if replicas.chief:
        say(f"the checkpoint in {folder} is of another training ({', '.join(changed)}): starting anew")
    return None


class _Part(NamedTuple):
    """What one call of ``fit`` does."""

    first_epoch: int
    epochs: int
    """The first epoch beyond it."""
    steps: int
    """In each epoch."""
    first_step: int
    """Since the beginning of training."""


def _parts(step: int, *, steps: int, epochs: int) -> Iterator[_Part]:
    """The rest of the epoch that a step is in the middle of, and the epochs after.

    >>> [tuple(part) for part in _parts(7, steps=5, epochs=3)]
    [(1, 2, 3, 7), (2, 3, 5, 10)]
    """
    epoch, done = divmod(step, steps)
    if done:
        yield _Part(epoch, epoch + 1, steps - done, step)
        epoch += 1
    if epoch < epochs:
        yield _Part(epoch, epochs, steps, epoch * steps)


def _write(fitted: Fitted, options: TrainOptions, run: str) -> None:
    names = list(fitted.history[0])
    rows = [[i, *row.values()] for i, row in enumerate(fitted.history, start=1)]
    lines: list[list[Any]] = [["epoch", *names], *rows]
    table = "".join(",".join(str(value) for value in line) + "\n" for line in lines)
    storage.write_bytes(options.history_file(run), table.encode())
    storage.write_bytes(options.metrics_file(run), saving.to_json(fitted.metrics))
    storage.write_bytes(options.throughput_file(run), saving.to_json(fitted.throughput))
