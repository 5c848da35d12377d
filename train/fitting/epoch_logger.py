"""What a training says, and remembers, of its epochs."""

import sys
import time
from typing import Any

import keras

from reelmill.train.fitting.checkpoint import Progress
from reelmill.train.fitting.input_wait import InputMeter
from reelmill.train.fitting.tensorboard_curves import Curves
from reelmill.train.models.saving import DIGITS


class Watch(keras.callbacks.Callback):  # type: ignore[misc] # Keras ships no types
    """Keeps every epoch's figures and times, and prints them where there is no terminal.

    Args:
        before: how far the training had come.
        epochs: how many there are in all.
        batch_size: clips of one step.
        meter: another callback, called before this one.
        curves: where TensorBoard reads; None: nowhere.
        prints: whether to print.
    """

    def __init__(
        self,
        before: Progress,
        *,
        epochs: int,
        batch_size: int,
        meter: InputMeter,
        curves: Curves | None,
        prints: bool,
    ) -> None:
        super().__init__()
        self.step = before.step
        """Global batches learned from."""
        self.history = list(before.history)
        """Figures of every epoch."""
        self._extras = list(before.extras)
        self._epochs, self._batch_size, self._meter, self._prints = epochs, batch_size, meter, prints
        self._curves = curves
        for epoch, figures in enumerate(zip(self.history, self._extras, strict=True)):
            self._draw(epoch, *figures)
        self._seconds_before = before.seconds
        self._begun = time.perf_counter()
        self._ends = [(self._begun, self.step)]

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Count the step."""
        self.step += 1

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keep, print and draw the figures."""
        self._ends.append((time.perf_counter(), self.step))
        figures = {name: round(float(value), DIGITS) for name, value in (logs or {}).items()}
        step_size = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        extras = {"learning_rate": float(step_size), "input_wait": self._meter.epochs[-1]}
        self.history.append(figures)
        self._extras.append(extras)
        self._draw(epoch, figures, extras)
        if self._prints:
            say(
                f"epoch {epoch + 1}/{self._epochs}  "
                + "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
            )

    def _draw(self, epoch: int, figures: dict[str, float], extras: dict[str, float]) -> None:
        if self._curves is not None:
            self._curves.add(epoch, figures | extras)

    def progress(self) -> Progress:
        """How far the training has come by now."""
        return Progress(
            step=self.step, history=self.history, extras=self._extras, seconds=round(self._seconds(), 2)
        )

    def throughput(self) -> dict[str, float]:
        """Clips per second, of validation's time too; seconds in all; and the share of input wait."""
        # the first epoch traces and compiles
        measured = self._ends[1:] if len(self._ends) > 2 else self._ends
        (begun, first), (ended, last) = measured[0], measured[-1]
        rate = (last - first) * self._batch_size / (ended - begun) if last > first else 0.0
        return {
            "clips_per_second": round(rate, 2),
            "seconds": round(self._seconds(), 2),
            "input_wait": round(self._meter.share, 4),
        }

    def _seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._begun


def say(line: str) -> None:
    """Print a line now."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
