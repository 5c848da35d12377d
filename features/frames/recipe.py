"""The frames column: raw video in, JPEG frames with their presentation times out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from reelmill.datasets.manifest import Clip
from reelmill.datasets.records import keys
from reelmill.datasets.records.sequence_example import Value, serialize
from reelmill.features.frames.decode import FrameOptions, decode_frames, quantiser
from reelmill.features.recipe import ColumnOptions, Payload, Recipe
from reelmill.features.video.ffmpeg import versions
from reelmill.features.video.geometry import stored_size
from reelmill.features.video.recipe import VideoMaker, VideoOptions


class FramesOptions(VideoOptions):
    """Section ``frames`` of params.yaml."""

    short_side: Annotated[int, Field(ge=1, le=16384)] | None = 256
    """Pixels of the frames' shorter side; null keeps the displayed size"""
    size: Annotated[list[Annotated[int, Field(ge=1, le=16384)]], Field(min_length=2, max_length=2)] | None = (
        None
    )
    """Exact [width, height] of the frames, whatever the aspect; goes before short_side"""
    fps: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Frames per second to resample to; null keeps every frame"""
    quality: Annotated[int, Field(ge=1, le=100)] = 90
    """JPEG quality, 1 to 100"""
    min_frames: Annotated[int, Field(ge=1)] = 1
    """Clips with fewer frames are quarantined"""
    shards: Annotated[int, Field(ge=1, le=99999)] | None = None
    """Shards of each split; null aims at 128 MiB a shard"""

    def stored(self) -> FrameOptions:
        """What the stored bytes depend on."""
        width, height = self.size or (0, 0)
        return FrameOptions(
            short_side=self.short_side,
            size=(width, height) if self.size else None,
            fps=self.fps,
            quality=self.quality,
            min_frames=self.min_frames,
        )


@dataclass(frozen=True, kw_only=True)
class FramesRecipe(Recipe):
    """How to make the frames column."""

    kind: ClassVar[str] = "frames"
    Options: ClassVar[type[ColumnOptions]] = FramesOptions

    name: str = "frames"
    options: FramesOptions
    raw: str

    @property
    def follows(self) -> None:
        """The dataset's shards are divided by the size of its frames."""
        return

    def made_by(self) -> dict[str, str]:
        """Versions of ffmpeg and of its libraries."""
        return versions()

    def source(self, clip: Clip) -> Mapping[str, Any]:
        """Content, time range, and the facts that steer the decoder."""
        names = "identity start_us end_us width height pix_fmt interlaced container probe_error".split()
        return {name: getattr(clip, name) for name in names}

    def expected_bytes(self, clip: Clip) -> int:
        """From the header's duration and rate, and the size of the stored pictures."""
        if clip.width is None or clip.height is None:
            return 0
        width, height = stored_size(
            clip.width, clip.height, short_side=self.options.short_side, size=self.options.stored().size
        )
        end = clip.end_us if clip.end_us is not None else clip.duration_us or 0
        microseconds = max(0, end - (clip.start_us or 0))
        rate = self.options.fps or clip.fps_average or 25
        # seen on real clips: 0.2 bytes a pixel at quantiser 2, falling about as its inverse
        frame = width * height * 2 // (5 * quantiser(self.options.quality))
        return round(microseconds * rate) // 1_000_000 * frame

    def maker(self) -> "_FramesMaker":
        """A decoder of clips."""
        return _FramesMaker(self)


class _FramesMaker(VideoMaker):
    def __init__(self, recipe: FramesRecipe) -> None:
        super().__init__(recipe.raw)
        self.options = recipe.options.stored()
        self.limits = recipe.options.child_limits()

    def from_video(self, local: str, clip: Clip) -> Payload:
        frames = decode_frames(local, clip, options=self.options, limits=self.limits)
        context: dict[str, Value | Sequence[Value]] = {
            keys.IMAGE_FORMAT: "JPEG",
            keys.IMAGE_CHANNELS: 3,
            keys.IMAGE_COLORSPACE: "RGB",
            keys.IMAGE_HEIGHT: frames.height,
            keys.IMAGE_WIDTH: frames.width,
            keys.IMAGE_FRAME_RATE: frames.frame_rate,
        }
        lists: dict[str, Iterable[Value | Sequence[Value]]] = {
            keys.IMAGE_ENCODED: frames.jpegs,
            keys.IMAGE_TIMESTAMP: frames.timestamps_us,
        }
        return Payload(
            data=serialize(context, lists),
            steps=len(frames.jpegs),
            decode_errors=frames.decode_errors,
            detail="; ".join(frames.messages)[:500] or None,
        )
