"""What it means for a clip how ffmpeg ended."""

import errno

from reelmill.features.recipe import ClipError
from reelmill.features.video.ffmpeg import FORBIDDEN, Finished, Limits, input_url

_OUT_OF_MEMORY = (256 - errno.ENOMEM, 256 - errno.EAGAIN)
"""Exit statuses for an allocation and for a thread that could not be had."""
_NO_MEMORY = ("Cannot allocate memory", "malloc", "pthread_create", "Resource temporarily unavailable")
DETAIL_LENGTH = 500


def check(finished: Finished, path: str, *, limits: Limits, what: str, nothing: str) -> None:
    """Raise ClipError where ffmpeg reached a limit or ended with an error.

    Args:
        finished: how it ended.
        path: of the video.
        limits: that it ran under.
        what: it wrote, as ``frames``.
        nothing: the reason for an error before anything was written, as ``no_frames``.
    """
    if finished.exceeded == "timeout":
        raise ClipError("timeout", f"decoding took longer than {limits.timeout_s:g} s")
    if finished.exceeded == "output":
        raise ClipError("too_large", f"its {what} take more than {limits.output_bytes >> 20} MiB")
    if finished.status == 0:
        return
    text = said(finished, path)
    if finished.status in _OUT_OF_MEMORY or any(phrase in text for phrase in _NO_MEMORY):
        raise ClipError("memory", f"ffmpeg needed more than {limits.memory_mb} MiB")
    if "whitelist" in text:
        raise ClipError("forbidden_format", FORBIDDEN)
    how = f"exit status {finished.status}" if finished.status > 0 else f"signal {-finished.status}"
    raise ClipError("decode_failed" if finished.output or finished.status < 0 else nothing, f"{how}: {text}")


def said(finished: Finished, path: str) -> str:
    """Its complaints on one line."""
    return " | ".join(messages(finished, path))[:DETAIL_LENGTH]


def messages(finished: Finished, path: str) -> list[str]:
    """Its complaints, without the video's path."""
    return [line.replace(input_url(path), "<video>").replace(path, "<video>") for line in finished.messages]
