from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reelmill.datasets.manifest import Clip
from reelmill.features.frames.decode import FrameOptions, FrameSequence, decode_frames
from reelmill.features.video.ffmpeg import Limits


@pytest.fixture(scope="session")
def decode(probed_clip: Callable[..., Clip]) -> Callable[..., FrameSequence]:
    """Decode the video at a path at its own size; bounds of the clip and frame options by name."""

    def run(
        path: str | Path,
        *,
        start_us: int | None = None,
        end_us: int | None = None,
        clip: Clip | None = None,
        limits: Limits | None = None,
        **options: Any,
    ) -> FrameSequence:
        row = clip if clip is not None else probed_clip(path, start_us=start_us, end_us=end_us)
        chosen = FrameOptions(**{"short_side": None, **options})
        return decode_frames(str(path), row, options=chosen, limits=limits or Limits(timeout_s=60))

    return run
