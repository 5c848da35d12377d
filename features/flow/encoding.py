"""Storing optical flow as JPEG, and what that costs."""

from typing import ClassVar

import cv2
import numpy as np

from reelmill.features.flow.estimators import Flow


class FlowEncoder:
    """Stores flow as JPEG: red is the horizontal, green the vertical component, blue nothing.

    Args:
        saturation: pixels that the values 0 and 255 stand for; what goes beyond is clamped.
        quality: of the JPEG, 1 .. 100; colours have full resolution (4:4:4).
    """

    def __init__(self, *, saturation: float, quality: int) -> None:
        self._scale = 127.5 / saturation
        sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
        self._parameters = [cv2.IMWRITE_JPEG_QUALITY, quality, *sampling]
        # kept from one picture to the next, for fresh memory is slow
        self._values = np.empty((0, 0, 2), np.uint8)
        self._blue_green_red = np.empty((0, 0, 3), np.uint8)

    def encode(self, flow: Flow) -> bytes:
        """The JPEG of flow in pixels, [h, w, 2] float32."""
        if self._values.shape != flow.shape:
            self._values = np.empty(flow.shape, np.uint8)
            self._blue_green_red = np.zeros((*flow.shape[:2], 3), np.uint8)
        cv2.addWeighted(flow, self._scale, flow, 0, 127.5, self._values, cv2.CV_8U)
        cv2.mixChannels([self._values], [self._blue_green_red], [0, 2, 1, 1])
        done, content = cv2.imencode(".jpg", self._blue_green_red, self._parameters)
        assert done
        return bytes(content.data)


def encode_flow(flow: Flow, *, saturation: float, quality: int) -> bytes:
    """Flow [h, w, 2] in pixels as one JPEG: see :class:`FlowEncoder`."""
    return FlowEncoder(saturation=saturation, quality=quality).encode(flow)


def decode_flow(jpeg: bytes, *, saturation: float) -> Flow:
    """Flow in pixels, [h, w, 2] float32, from a JPEG of :class:`FlowEncoder`.

    Raises:
        ValueError: it is no JPEG.
    """
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) if jpeg else None
    if picture is None:
        raise ValueError(f"no JPEG: {jpeg[:16]!r}")
    values = cv2.merge([cv2.extractChannel(picture, 2), cv2.extractChannel(picture, 1)])
    flow: Flow = cv2.addWeighted(values, 2 * saturation / 255, values, 0, -saturation, dtype=cv2.CV_32F)
    return flow


class FlowFigures:
    """What storing the flow of one clip costs.

    Args:
        saturation: pixels; see :class:`FlowEncoder`.
    """

    factors: ClassVar[dict[str, int]] = {
        "saturated": 1,
        "saturated_2x": 2,
        "saturated_4x": 4,
        "saturated_8x": 8,
    }
    """For each share the multiple of the saturation that a component exceeds."""
    names: ClassVar[tuple[str, ...]] = ("quantisation_error", *factors)
    """Of all figures."""
    every: ClassVar[int] = 16
    """Flow is compared with its JPEG for the first and each further sixteenth pair of frames."""

    def __init__(self, saturation: float) -> None:
        self._saturation = saturation
        self._pairs = self._pixels = self._compared = 0
        self._beyond = dict.fromkeys(self.factors, 0)
        self._distance = 0.0

    def add(self, flow: Flow, jpeg: bytes) -> None:
        """Take the flow of the next pair of frames into account, and what is stored for it."""
        self._pixels += flow.shape[0] * flow.shape[1]
        largest = None
        if cv2.norm(flow, cv2.NORM_INF) > self._saturation:
            largest = np.abs(flow).max(axis=-1)
            for name, factor in self.factors.items():
                self._beyond[name] += int(np.count_nonzero(largest > factor * self._saturation))
        if self._pairs % self.every == 0:
            # OpenCV's magnitude, for numpy's norm over pairs of numbers takes four times as long
            distance = cv2.magnitude(*cv2.split(flow - decode_flow(jpeg, saturation=self._saturation)))
            if largest is not None:
                distance = distance[largest <= self._saturation]
            self._compared += distance.size
            self._distance += float(distance.sum(dtype=np.float64))
        self._pairs += 1

    def values(self) -> dict[str, float]:
        """By name: shares of pixels 0 .. 1, and the mean distance in pixels over those not saturated."""
        shares = {name: round(count / max(1, self._pixels), 6) for name, count in self._beyond.items()}
        return {"quantisation_error": round(self._distance / max(1, self._compared), 6), **shares}
