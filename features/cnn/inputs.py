"""What a network is shown: pictures, stacks of flow and windows of frames, made from the JPEGs of a record."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from reelmill.datasets.errors import DatasetError
from reelmill.datasets.records import keys
from reelmill.datasets.records.sequence_example import SequenceExample
from reelmill.features.recipe import ClipError

InputKind = Literal["frames", "clips", "flow_stack", "flow_clips"]
Fit = Literal["crop", "stretch"]
FlowScale = Literal["0..255", "0..1", "-1..1", "pixels"]
Picture = NDArray[Any]
"""[h, w, 3] uint8 RGB, or [h, w, 2] float32 flow (x, y)."""


def windows(count: int, *, length: int, stride: int, every: int) -> list[tuple[int, ...]]:
    """Frames of each window over ``count`` frames: as many windows as fit, the first one at frame 0.

    A clip that is shorter than one window gives one, filled up by repeating the last frame.

    Args:
        count: frames of the clip, 1 at least.
        length: frames of a window.
        stride: distance between the frames of a window.
        every: distance between the first frames of two windows.

    >>> windows(7, length=3, stride=2, every=1)
    [(0, 2, 4), (1, 3, 5), (2, 4, 6)]
    >>> windows(2, length=3, stride=1, every=1)
    [(0, 1, 1)]
    """
    span = (length - 1) * stride
    starts = range(0, max(1, count - span), every)
    return [tuple(min(start + step * stride, count - 1) for step in range(length)) for start in starts]


def fitted(picture: Picture, *, height: int, width: int, fit: Fit) -> Picture:
    """A picture in another size, by area averaging where it shrinks and bilinearly where it grows.

    Args:
        picture: [h, w, c] uint8 or float32.
        height: of the result, in pixels.
        width: of the result, in pixels.
        fit: ``crop`` takes the largest centred part that has the aspect of the result, which is a resize of the
            short side followed by a centre crop; ``stretch`` takes the whole picture, whatever becomes of its aspect.
    """
    if fit == "crop":
        across, down = picture.shape[1], picture.shape[0]
        part_width = min(across, max(1, round(down * width / height)))
        part_height = min(down, max(1, round(across * height / width)))
        left, top = (across - part_width) // 2, (down - part_height) // 2
        picture = picture[top : top + part_height, left : left + part_width]
    if picture.shape[:2] == (height, width):
        return picture
    shrinks = height * width < picture.shape[0] * picture.shape[1]
    resized: Picture = cv2.resize(
        picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return resized


def picture_of(jpeg: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG: [h, w, 3] uint8 RGB. Raises ClipError where it is none."""
    decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB) if jpeg else None
    if decoded is None:
        raise ClipError("decode_failed", "a stored picture is no JPEG")
    return np.asarray(decoded, np.uint8)


def flow_of(jpeg: bytes) -> NDArray[np.float32]:
    """Decode a stored flow field in units of its saturation: [h, w, 2] float32 (x, y) in -1 .. 1."""
    return picture_of(jpeg)[..., :2].astype(np.float32) / np.float32(127.5) - np.float32(1)


def scaled_flow(flow: NDArray[np.float32], scale: FlowScale, *, saturation: float) -> NDArray[np.float32]:
    """Flow in -1 .. 1 on another scale; ``pixels`` is displacement in pixels of the stored flow's size."""
    if scale == "0..255":
        return flow * np.float32(127.5) + np.float32(127.5)
    if scale == "0..1":
        return flow * np.float32(0.5) + np.float32(0.5)
    return flow * np.float32(saturation) if scale == "pixels" else flow


@dataclass(frozen=True, slots=True, kw_only=True)
class InputForm:
    """What one input of a network is made of."""

    kind: InputKind
    height: int
    width: int
    length: int
    """Frames of a window; 1 for ``frames``."""
    stride: int
    every: int
    fit: Fit
    flow_scale: FlowScale
    subtract_mean: bool
    """Take from each flow field its mean, which is for the most part the camera's motion."""


class ClipInputs:
    """The inputs that one clip gives to a network.

    Args:
        record: a record with pictures or with flow.
        form: what the inputs are.
        column: where the record is from, for messages.

    Raises:
        ClipError: the record has no frames.
        DatasetError: the column holds no pictures, or no flow where flow is wanted.
    """

    def __init__(self, record: SequenceExample, form: InputForm, *, column: str) -> None:
        is_flow = keys.FLOW_ENCODED in record.feature_lists
        self._as_flow = form.kind in ("flow_stack", "flow_clips")
        if not is_flow and (self._as_flow or keys.IMAGE_ENCODED not in record.feature_lists):
            wanted = "optical flow" if self._as_flow else "pictures"
            raise DatasetError(f"column {column!r} holds no {wanted}: name with `over` one that does")
        encoded, timestamps, rate = (
            (keys.FLOW_ENCODED, keys.FLOW_TIMESTAMP, keys.FLOW_FRAME_RATE)
            if is_flow
            else (keys.IMAGE_ENCODED, keys.IMAGE_TIMESTAMP, keys.IMAGE_FRAME_RATE)
        )
        self._form = form
        self._saturation = float(record.context[keys.FLOW_SATURATION][0]) if self._as_flow else 0.0
        self._jpegs: list[bytes] = [step[0] for step in record.feature_lists[encoded]]
        # the last entry of flow repeats the one before it, so that there are as many as frames
        count = len(self._jpegs) - (self._as_flow and len(self._jpegs) > 1)
        if not count:
            raise ClipError("no_frames", f"the record in column {column!r} is empty")
        self.windows = windows(count, length=form.length, stride=form.stride, every=form.every)
        """Numbers of the frames of each input."""
        times = record.feature_lists[timestamps]
        self.timestamps_us = [int(times[window[0]][0]) for window in self.windows]
        """Presentation time of each input's first frame."""
        self.rate = float(record.context[rate][0]) / form.every
        """Inputs per second."""

    def frame(self, number: int) -> Picture:
        """One frame in the size that the network takes. Raises ClipError where it is no JPEG."""
        form = self._form
        if not self._as_flow:
            return fitted(picture_of(self._jpegs[number]), height=form.height, width=form.width, fit=form.fit)
        flow = flow_of(self._jpegs[number])
        flow = fitted(flow, height=form.height, width=form.width, fit=form.fit)
        if form.subtract_mean:
            flow = flow - flow.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
        return scaled_flow(flow, form.flow_scale, saturation=self._saturation)

    def fill(self, target: NDArray[Any], frames: Sequence[Picture]) -> None:
        """Write the input that a window's frames make.

        Args:
            target: [h, w, 3] for ``frames``; [h, w, 2 * length] for ``flow_stack``, channels in the order
                x0, y0, x1, y1 ... (equation 1 of Simonyan and Zisserman 2014); [length, h, w, c] for ``clips``
                and ``flow_clips``.
            frames: of one window.
        """
        if self._form.kind in ("clips", "flow_clips"):
            for place, frame in enumerate(frames):
                target[place] = frame
        else:
            for place, frame in enumerate(frames):
                target[..., place * frame.shape[-1] : (place + 1) * frame.shape[-1]] = frame
