"""Callbacks by which a training is saved, stopped and gone on with."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from reelmill.train.fitting.checkpoint import Checkpoint, State


class Interruption:
    """Whether somebody asked the training to stop, by Ctrl-C or SIGTERM."""

    asked = False

    def ask(self, *_signal: Any) -> None:
        """Ask; who asks twice does not want to wait for the end of the step. Raises KeyboardInterrupt."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def interruption() -> Iterator[Interruption]:
    """Inside, both signals ask; outside of the main thread, which gets no signals, nobody can."""
    asked = Interruption()
    heard = threading.current_thread() is threading.main_thread()
    before = {n: signal.signal(n, asked.ask) for n in (signal.SIGINT, signal.SIGTERM) if heard}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Saver(keras.callbacks.Callback):  # type: ignore[misc] # Keras ships no types
    """Saves a training after every epoch, every so many steps, and when it is stopped.

    Args:
        save: writes a checkpoint.
        step: how many steps are done, the present one included.
        every: steps between checkpoints; None: none within an epoch.
        steps_per_epoch: steps of an epoch; its last has no checkpoint of its own, since its metrics come with the
            validation after it.
        interruption: looked at after each step.
        saves_when_stopped: whether stopping writes one. Of several workers one alone cannot.
    """

    def __init__(
        self,
        save: Callable[[], None],
        *,
        step: Callable[[], int],
        every: int | None,
        steps_per_epoch: int,
        interruption: Interruption,
        saves_when_stopped: bool,
    ) -> None:
        super().__init__()
        self._save, self._step, self._every, self._steps_per_epoch = save, step, every, steps_per_epoch
        self._interruption, self._saves_when_stopped = interruption, saves_when_stopped

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Save where it is time to."""
        if self._step() % self._steps_per_epoch == 0:
            return
        stops = self._interruption.asked
        if (self._every and self._step() % self._every == 0) or (stops and self._saves_when_stopped):
            self._save()
        self._stop_if_asked()

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Stop in the middle of a validation; its epoch's end is not saved."""
        self._stop_if_asked()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Save."""
        self._save()
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self._interruption.asked:
            raise KeyboardInterrupt


class Restorer(keras.callbacks.Callback):  # type: ignore[misc]
    """Gives the metrics of an epoch in whose middle a training goes on what they had added up.

    Args:
        state: of the model.
        checkpoint: what to restore.
    """

    def __init__(self, state: State, checkpoint: Checkpoint) -> None:
        super().__init__()
        self._state, self._checkpoint = state, checkpoint

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Keras has just cleared them."""
        self._state.restore_sums(self._checkpoint)
