"""Optical flow between the frames of a clip, and how it is stored.

Flow is forward: ``flow[y, x]`` says by how many pixels what is at (x, y) of frame i has moved in frame i + 1,
first to the right, then down. It is stored as MediaSequence and DMVR have it: one JPEG for each frame, whose red
is the horizontal and whose green the vertical component.
"""

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from reelmill.datasets.errors import UsageError

Grey = NDArray[np.uint8]
"""A picture [h, w]."""
Flow = NDArray[np.float32]
"""[h, w, 2] in pixels: to the right, down."""
Estimate = Callable[[Grey, Grey], Flow]
"""From a picture to the next."""

Method = Literal["dis_ultrafast", "dis_fast", "dis_medium", "farneback", "tvl1"]

Count = Annotated[int, Field(ge=1, le=1000)]
Positive = Annotated[float, Field(ge=1e-6, le=1e6)]
NotNegative = Annotated[float, Field(ge=0, le=1e6)]
Share = Annotated[float, Field(ge=0.25, le=0.95)]


SMALLEST = 16
"""Pixels of the least side that Farnebäck's method and TV-L1 are given."""


def _padded(estimate: Estimate, width: int, height: int, least: tuple[int, int]) -> Estimate:
    """An estimate on pictures that are continued below and to the right to at least (height, width) pixels."""
    down, right = max(0, least[0] - height), max(0, least[1] - width)
    if not (down or right):
        return estimate

    def on_larger(first: Grey, second: Grey) -> Flow:
        larger = [cv2.copyMakeBorder(p, 0, down, 0, right, cv2.BORDER_REPLICATE) for p in (first, second)]
        return np.ascontiguousarray(estimate(*larger)[:height, :width])

    return on_larger


class Settings(BaseModel, ABC):
    """Parameters of a method, under OpenCV's own names and with its defaults. Limits keep out what crashes it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @abstractmethod
    def estimator(self, *, width: int, height: int) -> Estimate:
        """A function that estimates flow between pictures of this size."""


class DisMedium(Settings):
    """Dense inverse search: Kroeger et al., Fast Optical Flow using Dense Inverse Search (2016)."""

    preset: ClassVar[int] = cv2.DISOPTICAL_FLOW_PRESET_MEDIUM

    finest_scale: Annotated[int, Field(ge=0, le=10)] = 1
    patch_size: Annotated[int, Field(ge=4, le=64)] = 8
    patch_stride: Annotated[int, Field(ge=1, le=64)] = 3
    gradient_descent_iterations: Count = 25
    variational_refinement_iterations: Annotated[int, Field(ge=0, le=1000)] = 5
    variational_refinement_alpha: NotNegative = 20.0
    variational_refinement_delta: NotNegative = 5.0
    variational_refinement_gamma: NotNegative = 10.0
    variational_refinement_epsilon: Positive = 0.01
    use_mean_normalization: bool = True
    use_spatial_propagation: bool = True

    @model_validator(mode="after")
    def _no_gaps(self) -> Self:
        # OpenCV 5.0 crashes where patches leave gaps
        if self.patch_stride > self.patch_size:
            raise ValueError(
                f"patch_stride = {self.patch_stride} must not exceed patch_size = {self.patch_size}"
            )
        return self

    def estimator(self, *, width: int, height: int) -> Estimate:
        """See :meth:`Settings.estimator`."""
        # OpenCV 5.0 refuses pictures under three patches, and writes beyond its buffers (it crashes) where the
        # coarsest scale that fits a narrow picture is finer than finest_scale
        patch = self.patch_size
        sides = max(patch, height), max(patch, width)
        if max(sides) < 3 * patch:
            sides = (3 * patch, sides[1]) if height > width else (sides[0], 3 * patch)
        # the same arithmetic as in OpenCV's dis_flow.cpp
        coarsest = min(
            int(math.log(max(sides) / (4.0 * patch)) / math.log(2) + 0.5),
            int(math.log(min(sides) // patch) / math.log(2)),
        )
        dis = cv2.DISOpticalFlow.create(self.preset)
        for name, value in self:
            getattr(dis, "set" + name.title().replace("_", ""))(value)
        dis.setFinestScale(min(self.finest_scale, coarsest))

        # a third argument other than None would be where the search begins
        return _padded(lambda first, second: dis.calc(first, second, None), width, height, sides)


class DisFast(DisMedium):
    """The same with OpenCV's preset for more speed."""

    preset: ClassVar[int] = cv2.DISOPTICAL_FLOW_PRESET_FAST

    finest_scale: Annotated[int, Field(ge=0, le=10)] = 2
    patch_stride: Annotated[int, Field(ge=1, le=64)] = 4
    gradient_descent_iterations: Count = 16


class DisUltrafast(DisFast):
    """The same with OpenCV's preset for most speed: without refinement."""

    preset: ClassVar[int] = cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST

    gradient_descent_iterations: Count = 12
    variational_refinement_iterations: Annotated[int, Field(ge=0, le=1000)] = 0


class Farneback(Settings):
    """Farnebäck, Two-Frame Motion Estimation Based on Polynomial Expansion (2003); values of OpenCV's sample."""

    pyr_scale: Share = 0.5
    levels: Annotated[int, Field(ge=1, le=20)] = 3
    winsize: Annotated[int, Field(ge=2, le=255)] = 15
    iterations: Count = 3
    poly_n: Annotated[int, Field(ge=3, le=15)] = 5
    poly_sigma: Annotated[float, Field(ge=0.1, le=10)] = 1.2
    gaussian: bool = False
    """OPTFLOW_FARNEBACK_GAUSSIAN: a Gaussian window instead of a box."""

    def estimator(self, *, width: int, height: int) -> Estimate:
        """See :meth:`Settings.estimator`."""
        values = self.model_dump()
        flags = cv2.OPTFLOW_FARNEBACK_GAUSSIAN if values.pop("gaussian") else 0

        def estimate(first: Grey, second: Grey) -> Flow:
            found: Flow = cv2.calcOpticalFlowFarneback(first, second, None, **values, flags=flags)
            return found

        return _padded(estimate, width, height, (SMALLEST, SMALLEST))


class TvL1(Settings):
    """Zach et al., A Duality Based Approach for Realtime TV-L1 Optical Flow (2007)."""

    tau: Positive = 0.25
    lambda_: Positive = Field(0.15, alias="lambda")
    theta: Positive = 0.3
    gamma: NotNegative = 0.0
    scales_number: Annotated[int, Field(ge=1, le=20)] = 5
    scale_step: Share = 0.8
    warpings_number: Count = 5
    epsilon: Positive = 0.01
    inner_iterations: Count = 30
    outer_iterations: Count = 10
    median_filtering: Literal[1, 3, 5] = 5

    def estimator(self, *, width: int, height: int) -> Estimate:
        """See :meth:`Settings.estimator`."""
        tvl1 = cv2.optflow.DualTVL1OpticalFlow.create()
        for name, value in self:
            getattr(tvl1, "set" + name.title().replace("_", ""))(value)
        sides = SMALLEST, SMALLEST
        return _padded(lambda first, second: tvl1.calc(first, second, None), width, height, sides)


METHODS: dict[Method, type[Settings]] = {
    "dis_ultrafast": DisUltrafast,
    "dis_fast": DisFast,
    "dis_medium": DisMedium,
    "farneback": Farneback,
    "tvl1": TvL1,
}
"""What each method can be told."""


def settings_of(method: Method, values: Mapping[str, Any] | None = None) -> Settings:
    """All parameters of a method.

    Args:
        method: one of :data:`METHODS`.
        values: those that are not to have their default.

    Raises:
        UsageError: there is no such method or parameter, or a value is wrong.
    """
    if method not in METHODS:
        raise UsageError(f"method = {method!r} must be one of {', '.join(get_args(Method))}")
    model = METHODS[method]
    names = [field.alias or name for name, field in model.model_fields.items()]
    for name in values or {}:
        if name not in names:
            raise UsageError(f"{method} has no parameter {name!r}; it has {', '.join(names)}")
    try:
        return model.model_validate(dict(values or {}))
    except ValidationError as error:
        first = error.errors()[0]
        what = first["msg"].removeprefix("Value error, ")
        given = f"{first['loc'][0]} = {first['input']!r}: " if first["loc"] else ""
        raise UsageError(f"{method}: {given}{what}") from None


@contextlib.contextmanager
def reproducible() -> Iterator[None]:
    """Hold OpenCV to one thread, and to code that gives the same flow on every x86 processor.

    What OpenCV has in versions for AVX2, and what it hands to IPP, rounds otherwise on another processor: flow
    differs by up to 0.005 pixels, 1e-6 on average, and some bytes of the JPEGs with it. The switch is the whole
    process's, and is put back at the end.
    """
    threads, optimised = cv2.getNumThreads(), cv2.useOptimized()
    cv2.setNumThreads(1)
    cv2.setUseOptimized(False)
    try:
        yield
    finally:
        cv2.setUseOptimized(optimised)
        cv2.setNumThreads(threads)


def forward_flow(pictures: Iterable[Grey], settings: Settings) -> Iterator[Flow]:
    """Flow from each picture to the next: one less than there are pictures, all of one size."""
    estimate: Estimate | None = None
    previous: Grey | None = None
    for picture in pictures:
        if previous is not None:
            if estimate is None:
                estimate = settings.estimator(width=picture.shape[1], height=picture.shape[0])
            yield estimate(previous, picture)
        previous = picture
