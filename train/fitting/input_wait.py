"""How long training waits for input: the starvation meter.

A step is cut in two where the next batch is handed over: before it the model waits, after it the model works. The
work of accelerators is waited for before the clock is read, or it would hide behind the next wait.
"""

import time
from collections.abc import Generator, Iterable, Iterator
from typing import Any, TypeVar

import keras
import tensorflow as tf

from reelmill.train.loading.prefetch import ahead

Batch = TypeVar("Batch")

WARM_UP = 2
"""First steps that are left out: they trace and compile, while the loader fills its buffers."""
NOTICED = 0.01
"""Share of a step from which on waiting means that loading is the slower side."""


class Meter:
    """Seconds of every step, and of its wait for input; the first steps are left out.

    Args:
        warm_up: how many steps to leave out.
    """

    def __init__(self, *, warm_up: int = WARM_UP) -> None:
        self.waits: list[float] = []
        """Seconds that each step waited for its batch."""
        self.steps: list[float] = []
        """Seconds of each whole step, its wait included."""
        self._left_out = warm_up

    def add(self, *, wait: float, step: float) -> None:
        """Count one step: seconds of its wait, and seconds in all."""
        if self._left_out:
            self._left_out -= 1
            return
        self.waits.append(wait)
        self.steps.append(step)

    def share_since(self, first: int) -> float:
        """Share of the time from step ``first`` on that was waiting, 0 to 1; 0 where there is no such step.

        >>> meter = Meter(warm_up=1)
        >>> for wait in (5.0, 1.0, 0.0):
        ...     meter.add(wait=wait, step=10.0)
        >>> meter.share_since(0), meter.share_since(1)
        (0.05, 0.0)
        """
        return sum(self.waits[first:]) / sum(self.steps[first:]) if len(self.steps) > first else 0.0

    @property
    def share(self) -> float:
        """Share of the time that was waiting for input, 0 to 1; 0 before the first step."""
        return self.share_since(0)

    def summary(self) -> str:
        """One line that names the slower side."""
        if not self.steps:
            return "input wait: too few steps to measure"
        waits = f"the model waits {100 * self.share:.1f} % of each step for input"
        if self.share < NOTICED:
            return f"{waits}: the model is the slower side"
        return f"{waits}: loading is the slower side; `reelmill bench loader` measures what would help"


def metered(batches: Iterable[Batch], meter: Meter) -> Iterator[Batch]:
    """The same batches, for a training loop of one's own.

    What the loop does with a batch counts as the step's work. It must have its result before it asks for the next
    batch, as ``float(loss)`` does: an accelerator still at work would hide the wait.

    Args:
        batches: a ``tf.data.Dataset``, a distributed one, or any other iterable.
        meter: where to count.
    """
    iterator = iter(batches)
    while True:
        begun = time.perf_counter()
        try:
            batch = next(iterator)
        except StopIteration:
            return
        ready = time.perf_counter()
        yield batch
        meter.add(wait=ready - begun, step=time.perf_counter() - begun)


class InputMeter(Meter, keras.callbacks.Callback):  # type: ignore[misc] # Keras ships no types
    """A meter for ``model.fit``, with Keras on TensorFlow, under any strategy, or on JAX.

    It takes the batches out of the iterator in the model's stead, each while the step before is at work
    (:func:`reelmill.train.loading.prefetch.ahead`), and hands them on one by one: also with
    ``steps_per_execution`` every step is measured, each as a call of its own. Results of the training
    are the same. Its figures are not in Keras' logs, since no two runs agree in them.

    Args:
        log_dir: TensorBoard's folder; each epoch's share is ``epoch_input_wait`` of the run ``input`` in it.
            None: no TensorBoard.
    """

    def __init__(self, log_dir: str | None = None) -> None:
        Meter.__init__(self)
        keras.callbacks.Callback.__init__(self)
        self.epochs: list[float] = []
        """Share of every epoch; 0 for one without a measured step."""
        self._log_dir = log_dir
        self._writer: Any = None
        self._first = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Come between the model and its input."""
        inner = self.model.train_function
        while isinstance(inner, _Metered):  # left by a training that was interrupted
            inner.close()
            inner = inner.inner
        self.model.train_function = _Metered(inner, self, self.model.steps_per_execution)
        if self._log_dir is not None:
            # a folder of its own: TensorBoard reads one file of events in each
            self._writer = tf.summary.create_file_writer(tf.io.gfile.join(self._log_dir, "input"))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Begin an epoch's share."""
        self._first = len(self.steps)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Keep the epoch's share."""
        self.epochs.append(self.share_since(self._first))
        if self._writer is not None:
            with self._writer.as_default():
                tf.summary.scalar("epoch_input_wait", self.epochs[-1], step=epoch)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Leave the model as it was."""
        if isinstance(self.model.train_function, _Metered):
            self.model.train_function.close()
            self.model.train_function = self.model.train_function.inner
        if self._writer is not None:
            self._writer.close()


class _Metered:
    """A model's ``train_function``, measured: of an iterator on TensorFlow, of a state and an iterator on JAX."""

    def __init__(self, inner: Any, meter: Meter, steps: int) -> None:
        self.inner = inner
        self._meter = meter
        self._steps = steps
        self._source: Any = None
        self._batches: Generator[Any] = ahead([])

    def close(self) -> None:
        """Let go of the batch that was taken ahead."""
        self._batches.close()
        self._source = None

    def __call__(self, *arguments: Any) -> Any:
        *state, iterator = arguments
        if iterator is not self._source:  # Keras keeps one for all epochs, or makes one for each
            self.close()
            self._source, self._batches = iterator, ahead(iterator)
        result: Any = None
        for number in range(self._steps):
            begun = time.perf_counter()
            try:
                batch = next(self._batches)
            except StopIteration:
                if number == 0:
                    raise
                break
            ready = time.perf_counter()
            result = self.inner(*state, iter([batch]))
            logs, *state = result if state else (result,)
            for value in keras.tree.flatten(logs):
                keras.ops.convert_to_numpy(value)  # waits for the device
            self._meter.add(wait=ready - begun, step=time.perf_counter() - begun)
        return result
