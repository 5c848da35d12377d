"""Frames of one clip: decoded, shown as a player would, scaled, and compressed to JPEG by one ffmpeg process.

ffmpeg writes the JPEG images one after the other to its standard output, and for each its presentation time
and its length to a second descriptor (``-stats_enc_post``), so that images and times cannot get out of step.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import av
import ffmpeg

from reelmill.datasets.manifest import Clip
from reelmill.features.recipe import ClipError
from reelmill.features.video.ffmpeg import FORMATS, PROTOCOLS, Finished, Limits, binary, input_url, run
from reelmill.features.video.ffmpeg_errors import check, messages, said
from reelmill.features.video.geometry import stored_size

SEEKABLE = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
"""Containers whose index finds the key frame before a time; in all others a clip is decoded from the start."""
SEEK_MARGIN_US = 2_000_000
"""Seek this far before a clip's start: more than any reordering of frames."""

RESAMPLING_TOLERANCE_US = 1000
"""A frame that begins this much after a resampled time is still taken for it."""

_SCALER = "bicubic+accurate_rnd+full_chroma_int+bitexact"


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameOptions:
    """How frames are stored; every field changes the bytes."""

    short_side: int | None = 256
    """Pixels of the shorter side; None: the displayed size."""
    size: tuple[int, int] | None = None
    """Exact width and height in pixels, whatever the aspect; goes before ``short_side``."""
    fps: float | None = None
    """Frames per second to resample to: at each multiple of 1/fps the frame on screen then; None: every frame."""
    quality: int = 90
    """JPEG quality on libjpeg's scale, 1 .. 100."""
    min_frames: int = 1
    """Clips with fewer stored frames are quarantined."""

    def __post_init__(self) -> None:
        for name in ("short_side", "min_frames"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= 16384:
                raise ValueError(f"{name} = {value} must be 1 .. 16384")
        if self.size is not None and not all(1 <= side <= 16384 for side in self.size):
            raise ValueError(f"size = {self.size} must be two numbers of 1 .. 16384")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise ValueError(f"fps = {self.fps} must be above 0 and at most 1000")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality = {self.quality} must be 1 .. 100")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameSequence:
    """The stored frames of one clip."""

    jpegs: list[bytes] = field(repr=False)
    """One baseline JPEG a frame: full-range BT.601, square pixels, upright; 4:4:4 where the source has a colour
    for every pixel, else 4:2:0."""
    timestamps_us: list[int]
    """Presentation time of each frame on the video's own timeline, in microseconds; strictly increasing."""
    width: int
    """Of the stored pictures, in pixels."""
    height: int
    """Of the stored pictures, in pixels."""
    frame_rate: float
    """Frames per second: ``fps`` where asked for, else the average over the clip, else the header's."""
    decode_errors: int
    """How many times the decoder complained; 0 for a clean file."""
    messages: list[str]
    """A few of its complaints."""


def quantiser(quality: int) -> int:
    """Ffmpeg's MJPEG quantiser (1 best .. 31) whose table is, on average, at least as fine as libjpeg's.

    libjpeg scales its luminance table (mean 57.6) by ``200 - 2q`` percent, or ``5000 / q`` below 50; ffmpeg's
    table at quantiser n is the MPEG-1 intra matrix (mean 33.4) times n/8.

    >>> [quantiser(q) for q in (100, 95, 90, 75, 50, 10)]
    [1, 1, 2, 6, 13, 31]
    """
    percent = 200 - 2 * quality if quality >= 50 else 5000 / quality
    return min(31, max(1, math.floor(57.6 * percent / 100 * 8 / 33.4)))


def decode_frames(path: str, clip: Clip, *, options: FrameOptions, limits: Limits) -> FrameSequence:
    """Decode, scale and compress the frames of one clip.

    Args:
        path: a local video file.
        clip: its row of the manifest: the time range, and what probing found.
        options: how to store it.
        limits: what the child process may use; ``output_bytes`` bounds the images of the clip.

    Returns:
        The frames with presentation time in [clip.start_us, clip.end_us).

    Raises:
        ClipError: the clip has no usable frames, or a limit was reached.
    """
    if clip.width is None or clip.height is None:
        raise ClipError(clip.probe_error or "not_a_video", clip.probe_detail or "probing found no video")
    width, height = stored_size(clip.width, clip.height, short_side=options.short_side, size=options.size)
    side_fd = os.memfd_create("reelmill-times")
    try:
        command = frames_command(path, clip, options=options, size=(width, height), side_fd=side_fd)
        finished = run(command, limits=limits, side_fd=side_fd)
    finally:
        os.close(side_fd)
    check(finished, path, limits=limits, what="frames", nothing="no_frames")
    jpegs, times = _split(finished)
    if not jpegs:
        raise ClipError("no_frames", said(finished, path) or "no frame in the clip's time range")
    if len(jpegs) < options.min_frames:
        raise ClipError("too_few_frames", f"{len(jpegs)} frames, min_frames is {options.min_frames}")
    return FrameSequence(
        jpegs=jpegs,
        timestamps_us=times,
        width=width,
        height=height,
        frame_rate=_frame_rate(times, options, clip),
        decode_errors=finished.num_messages,
        messages=messages(finished, path),
    )


def frames_command(
    path: str, clip: Clip, *, options: FrameOptions, size: tuple[int, int], side_fd: int | None
) -> list[str]:
    """The ffmpeg command line that :func:`decode_frames` runs.

    Args:
        path: a local video file.
        clip: its row of the manifest.
        options: how to store it.
        size: width and height to store.
        side_fd: where to write a line ``pts size`` for each image; None: nowhere (for benchmarks).
    """
    opened: dict[str, Any] = {
        "protocol_whitelist": PROTOCOLS,
        "format_whitelist": ",".join(FORMATS),
        "threads": 1,
    }
    if clip.start_us is not None and clip.start_us > SEEK_MARGIN_US and clip.container in SEEKABLE:
        opened |= {"seek_timestamp": 1, "noaccurate_seek": None, "ss": f"{clip.start_us - SEEK_MARGIN_US}us"}
    video = ffmpeg.input("<video>", **opened)["V:0"]
    if clip.interlaced:
        video = video.filter("bwdif", mode="send_frame", deint="interlaced")
    # in microseconds, for filters round bounds to the time base that they find
    video = video.filter("settb", "1/1000000")
    if clip.start_us is not None or clip.end_us is not None:
        bounds = {"start": clip.start_us, "end": clip.end_us}
        video = video.filter("trim", **{name: f"{at}us" for name, at in bounds.items() if at is not None})
    if options.fps is not None:
        # at each time the frame that is on screen then (to the nearest would be up to half a step late); a little
        # earlier counts as then, for many containers round times to milliseconds
        early = min(RESAMPLING_TOLERANCE_US, round(250_000 / options.fps))
        video = video.filter("setpts", f"PTS-{early}").filter("fps", fps=options.fps, round="up")
    video = video.filter(
        "scale", *size, flags=_SCALER, out_range="full", out_color_matrix="bt601", eval="init"
    ).filter("format", "yuv444p" if _has_full_chroma(clip.pix_fmt) else "yuv420p")
    # equal or falling times, which the encoder refuses, become one microsecond apart
    video = video.filter("settb", "1/1000000").filter(
        "setpts", "if(isnan(PREV_OUTPTS),PTS,max(PTS,PREV_OUTPTS+1))"
    )
    written: dict[str, Any] = {
        "format": "image2pipe",
        "vcodec": "mjpeg",
        "qscale:v": (q := quantiser(options.quality)),
        "qmin": q,
        "qmax": q,
        # optimal tables cost a fifth of the throughput and save 3 % of the bytes
        "huffman": "default",
        "flags": "bitexact",
        "threads": 1,
        "filter_threads": 1,
        "fps_mode": "passthrough",
        "enc_time_base": "1:1000000",
    }
    if side_fd is not None:
        written |= {"stats_enc_post": f"file:/dev/fd/{side_fd}", "stats_enc_post_fmt": "{pts} {size}"}
    output = ffmpeg.output(video, "pipe:1", **written)
    quiet = output.global_args("-nostdin", "-hide_banner", "-loglevel", "repeat+error", "-copyts")
    command: list[str] = quiet.compile(cmd=binary())
    # put in last, for ffmpeg-python can't hold a name that is no UTF-8
    command[command.index("<video>")] = input_url(path)
    return command


def _has_full_chroma(pix_fmt: str | None) -> bool:
    """Whether a pixel format has a colour for every pixel, as RGB, palettes and 4:4:4 have."""
    if pix_fmt is None:
        return False
    pixels = av.VideoFormat(pix_fmt)
    if pixels.is_rgb or pixels.has_palette:
        return True
    return len(pixels.components) >= 3 and pixels.chroma_width(64) == 64 and pixels.chroma_height(64) == 64


def _split(finished: Finished) -> tuple[list[bytes], list[int]]:
    jpegs, times = [], []
    for offset, size, time in _lengths(finished):
        jpegs.append(finished.output[offset : offset + size])
        times.append(time)
    return jpegs, times


def _lengths(finished: Finished) -> Iterator[tuple[int, int, int]]:
    offset = 0
    for line in finished.side_output.splitlines():
        time, size = map(int, line.split())
        yield offset, size, time
        offset += size
    if offset != len(finished.output):
        raise ClipError("decode_failed", f"ffmpeg announced {offset} bytes and wrote {len(finished.output)}")


def _frame_rate(times: list[int], options: FrameOptions, clip: Clip) -> float:
    if options.fps is not None:
        return float(options.fps)
    if len(times) > 1 and times[-1] > times[0]:
        return (len(times) - 1) * 1_000_000 / (times[-1] - times[0])
    return clip.fps_average or 0.0
