"""Batches of one size across the borders of clips, and the features put back together clip by clip."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reelmill.features.recipe import ClipError

Features = NDArray[np.float32]


class Inputs(Protocol):
    """The inputs of one clip, made frame by frame."""

    windows: list[tuple[int, ...]]
    """Numbers of the frames of each input; the first and the last number never fall from one to the next."""

    def frame(self, number: int) -> NDArray[Any]:
        """One frame; called once for each, on another thread. Raises ClipError."""
        ...

    def fill(self, target: NDArray[Any], frames: Sequence[NDArray[Any]]) -> None:
        """Write one input."""
        ...


class _Clip:
    """A clip of which something is still to come."""

    def __init__(self, inputs: Inputs | ClipError) -> None:
        self.error = inputs if isinstance(inputs, ClipError) else None
        self.inputs = None if isinstance(inputs, ClipError) else inputs
        self.rows: list[Features] = []
        self.started = 0
        """Inputs that were made."""
        self._frames: dict[int, NDArray[Any]] = {}

    @property
    def is_done(self) -> bool:
        return self.inputs is None or self.error is not None or len(self.rows) == len(self.inputs.windows)

    def numbers(self) -> list[int]:
        """The frames that it needs, in order."""
        return sorted({n for window in self.inputs.windows for n in window}) if self.inputs else []

    def take(self, number: int, frame: NDArray[Any]) -> Iterator[list[NDArray[Any]]]:
        """Add a frame; gives the frames of each input that is complete with it."""
        assert self.inputs is not None
        self._frames[number] = frame
        while self.started < len(self.inputs.windows) and self.inputs.windows[self.started][-1] <= number:
            window = self.inputs.windows[self.started]
            self.started += 1
            yield [self._frames[n] for n in window]
            following = self.inputs.windows[self.started : self.started + 1]
            self._frames = {n: f for n, f in self._frames.items() if following and n >= following[0][0]}


def features_of(
    clips: Iterable[Inputs | ClipError],
    *,
    features: Callable[[NDArray[Any]], Features],
    buffer: NDArray[Any],
    pool: Executor,
    across: bool = True,
) -> Iterator[Features | ClipError]:
    """Features of every input of every clip, in order, each clip as soon as its last input is through.

    Holds the frames of about three batches at a time.

    Args:
        clips: their inputs, or the error that ends one; read as far ahead as batches need.
        features: of a whole batch: [b, ...] to [b, ...].
        buffer: the batch; rows that no input is left for are zero.
        pool: makes frames while ``features`` is at work.
        across: let a batch hold inputs of several clips; else each clip begins a batch of its own.
    """
    waiting: deque[_Clip] = deque()
    batch: list[_Clip] = []

    def flush() -> None:
        buffer[len(batch) :] = 0
        for clip, row in zip(batch, features(buffer), strict=False):
            clip.rows.append(row)
        batch.clear()

    def finished() -> Iterator[Features | ClipError]:
        while waiting and waiting[0].is_done:
            clip = waiting.popleft()
            yield clip.error or np.stack(clip.rows)

    for clip, number, frame in _frames(clips, waiting, pool, ahead=2 * len(buffer)):
        if clip.error is not None:
            continue
        try:
            arrived = frame.result()
        except ClipError as error:
            clip.error = error
            continue
        for complete in clip.take(number, arrived):
            assert clip.inputs is not None
            clip.inputs.fill(buffer[len(batch)], complete)
            batch.append(clip)
            last = not across and clip.started == len(clip.inputs.windows)
            if len(batch) == len(buffer) or last:
                flush()
                yield from finished()
    if batch:
        flush()
    yield from finished()
    assert not waiting


def _frames(
    clips: Iterable[Inputs | ClipError], waiting: deque[_Clip], pool: Executor, *, ahead: int
) -> Iterator[tuple[_Clip, int, Future[NDArray[Any]]]]:
    """Every frame of every clip in order, some of them begun ahead; puts the clips that it meets in ``waiting``."""
    begun: deque[tuple[_Clip, int, Future[NDArray[Any]]]] = deque()
    for inputs in clips:
        clip = _Clip(inputs)
        waiting.append(clip)
        for number in clip.numbers():
            assert clip.inputs is not None
            begun.append((clip, number, pool.submit(clip.inputs.frame, number)))
            if len(begun) >= ahead:
                yield begun.popleft()
    while begun:
        yield begun.popleft()
