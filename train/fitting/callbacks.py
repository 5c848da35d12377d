"""Keras callbacks of a training: progress, TensorBoard, checkpoints, and stopping on a signal."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from reelmill.datasets import storage
from reelmill.train.fitting.checkpoint import Progress
from reelmill.train.fitting.input_wait import InputMeter
from reelmill.train.models.saving import DIGITS

Logs = dict[str, Any] | None


class StopRequest:
    """Whether SIGINT or SIGTERM has asked the training to stop."""

    received = False

    def handle(self, *_signal: Any) -> None:
        """Handle a signal. The second one raises KeyboardInterrupt without waiting for the end of the step."""
        if self.received:
            raise KeyboardInterrupt
        self.received = True


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Handle SIGINT and SIGTERM inside this context; only the main thread can, in others this has no effect."""
    request = StopRequest()
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    previous = {number: signal.signal(number, request.handle) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class EpochLogger(keras.callbacks.Callback):  # type: ignore[misc] # Keras ships no types
    """Updates the progress, and prints one line per epoch.

    Args:
        progress: progress of the training; updated after every step and epoch.
        epochs: total number of epochs.
        verbose: whether to print.
    """

    def __init__(self, progress: Progress, *, epochs: int, verbose: bool) -> None:
        super().__init__()
        self.progress = progress
        self._epochs, self._verbose = epochs, verbose
        self._start = time.perf_counter() - progress.seconds
        self._epoch_ends = [(progress.seconds, progress.step)]

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:  # noqa: ARG002
        """Count the step."""
        self.progress.step += 1
        self.progress.seconds = time.perf_counter() - self._start

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Add the epoch's metrics to the history, and print them."""
        self.progress.seconds = time.perf_counter() - self._start
        self._epoch_ends.append((self.progress.seconds, self.progress.step))
        metrics = {name: round(float(value), DIGITS) for name, value in (logs or {}).items()}
        self.progress.history.append(metrics)
        if self._verbose:
            values = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            print(f"epoch {epoch + 1}/{self._epochs}  {values}", flush=True)

    def clips_per_second(self, batch_size: int) -> float:
        """Return the throughput of training and validation, without the first epoch if there are several."""
        ends = self._epoch_ends[1:] if len(self._epoch_ends) > 2 else self._epoch_ends  # the first compiles
        (start, first_step), (end, last_step) = ends[0], ends[-1]
        return (last_step - first_step) * batch_size / (end - start) if last_step > first_step else 0.0


class TensorBoard(keras.callbacks.TensorBoard):  # type: ignore[misc]
    """Keras' callback, which writes metrics and the learning rate of every epoch, plus the share of input wait.

    Args:
        log_dir: folder of this training; the files are in its subfolders ``train`` and ``validation``.
        meter: measures the input wait; it must come before this callback.
    """

    def __init__(self, log_dir: str, meter: InputMeter) -> None:
        super().__init__(log_dir, write_graph=False)
        self._meter = meter

    def remove_event_files(self) -> None:
        """Remove the event files of earlier trainings, to which Keras would append, and no other files."""
        for part in ("train", "validation"):
            for path in tf.io.gfile.glob(storage.join(self.log_dir, part, "events.out.tfevents.*")):
                tf.io.gfile.remove(path)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Write the epoch's values to disk now, so that an interrupted training does not lose them."""
        super().on_epoch_end(epoch, {**(logs or {}), "input_wait": self._meter.epochs[-1]})
        for writer in self._writers.values():
            writer.flush()


class CheckpointSaver(keras.callbacks.Callback):  # type: ignore[misc]
    """Saves a checkpoint after every epoch, every ``every`` steps, and before the training stops on a signal.

    Args:
        save: function that writes a checkpoint.
        progress: progress including the current step; the callback that updates it must come before this one.
        every: steps between checkpoints; None: only at the end of each epoch.
        steps_per_epoch: steps of an epoch. After the last one nothing is saved before the validation, whose metrics
            are part of the epoch's history.
        stop_request: checked after each step.
        save_on_stop: whether to save before stopping. Saving needs all workers, and a signal may reach only one.
    """

    def __init__(
        self,
        save: Callable[[], None],
        *,
        progress: Progress,
        every: int | None,
        steps_per_epoch: int,
        stop_request: StopRequest,
        save_on_stop: bool,
    ) -> None:
        super().__init__()
        self._save, self._progress, self._every, self._steps_per_epoch = (
            save,
            progress,
            every,
            steps_per_epoch,
        )
        self._stop_request, self._save_on_stop = stop_request, save_on_stop

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:  # noqa: ARG002
        """Save if a checkpoint is due, and stop if requested."""
        step = self._progress.step
        if step % self._steps_per_epoch == 0:
            return
        if (self._every and step % self._every == 0) or (self._stop_request.received and self._save_on_stop):
            self._save()
        self._stop_if_requested()

    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None:  # noqa: ARG002
        """Stop during validation if requested; the last checkpoint remains."""
        self._stop_if_requested()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:  # noqa: ARG002
        """Save."""
        self._save()
        self._stop_if_requested()

    def _stop_if_requested(self) -> None:
        if self._stop_request.received:
            raise KeyboardInterrupt
