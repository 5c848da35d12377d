"""The ffmpeg child process: which binary, what it may open, and the limits it runs under."""

import math
import os
import re
import resource
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from heapq import nsmallest
from typing import IO

FORMATS = (
    "3dostr 4xm aac ac3 aiff amv apng argo_brp asf au av1 avi avs avs2 avs3 bethsoftvid bfi bink c93 "
    "caf cavsvideo cdg cdxl cine dhav dirac dnxhd dsicin dts dv dxa ea eac3 evc film_cpk flac flic "
    "flv g723_1 gif gxf h261 h263 h264 hevc idcin ifv ipmovie ivf jv live_flv lmlm4 lvf m4v matroska "
    "webm mgsts mjpeg mjpeg_2000 mlv mm mov mp4 m4a 3gp 3g2 mj2 mp3 mpc mpeg mpegts mpegtsraw "
    "mpegvideo mpjpeg msnwctcp mtv mv mvi mxf mxg nsv nut nuv obu ogg oma paf pmp psxstr r3d rawvideo "
    "rl2 rm roq rpl rsd segafilm siff smjpeg smk smush svs swf thp tiertexseq tmv truehd tta ty vc1 "
    "vc1test vivo vmd voc vvc w64 wav wc3movie wsaud wsvqa wtv wv xmv xwma yop yuv4mpegpipe "
).split()
"""Demuxers that read one file and nothing else. Playlists, concat scripts, image sequences, devices and
script engines (hls, dash, concat, imf, image2, lavfi, sdp, avisynth, vapoursynth ...) are not among them."""

FORBIDDEN = "a playlist, script, still image or the like, which ffmpeg may not open here"
"""What to say of a file in a format that is not among :data:`FORMATS`."""

PROTOCOLS = "file"
"""The only protocol that an input may use; it cannot reach the network."""

KEPT_MESSAGES = 5
_ADDRESS = re.compile(r" @ 0x[0-9a-f]+")
_CONSEQUENCES = re.compile(
    r"\[(fc|vost|out)#|Conversion failed|Task finished|Terminating thread|Error opening (input|output) file"
)
"""Lines that only say that an earlier line had an effect."""


@cache
def binary() -> str:
    """Path of ffmpeg: ``$REELMILL_FFMPEG``, else the one in the imageio-ffmpeg wheel.

    Raises:
        FileNotFoundError: neither is there.
    """
    import imageio_ffmpeg

    named = os.environ.get("REELMILL_FFMPEG")
    if named:
        if not (os.path.isfile(named) and os.access(named, os.X_OK)):
            raise FileNotFoundError(2, "REELMILL_FFMPEG names no program", named)
        return named
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise FileNotFoundError(2, f"no ffmpeg: {error}", "imageio-ffmpeg") from None


@cache
def versions() -> dict[str, str]:
    """Versions of ffmpeg and of its libraries, as ``{"ffmpeg": "9.0.2...", "libavcodec": "63. 1.100", ...}``."""
    text = subprocess.run(
        [binary(), "-version"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    found = re.match(r"ffmpeg version (\S+)", text)
    libraries = re.findall(r"^(lib\w+)\s+([\d. ]+?) /", text, flags=re.MULTILINE)
    return {
        "ffmpeg": found[1] if found else "unknown",
        **{name: number.replace(" ", "") for name, number in libraries},
    }


def input_url(path: str) -> str:
    """How to name a local file to ffmpeg so that nothing in its name means anything.

    >>> input_url("-a?b%d[1].mp4")
    'file:-a?b%d[1].mp4'
    """
    return f"file:{path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a child process may use before it is killed."""

    timeout_s: float = 600.0
    """Wall-clock seconds."""
    memory_mb: int = 4096
    """Address space in MiB. A 4K HEVC decode with one thread was seen to need about 700."""
    output_bytes: int = 256 << 20
    """Bytes it may write to standard output."""

    def __post_init__(self) -> None:
        for name in ("timeout_s", "memory_mb", "output_bytes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)} must be positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What a child process left behind."""

    status: int
    """Exit status; negative: the signal that ended it."""
    output: bytes
    """All of its standard output, cut at ``Limits.output_bytes``."""
    side_output: bytes
    """What it wrote to the file descriptor that it was given besides."""
    messages: list[str]
    """A few lines of standard error, cleaned of addresses, the smallest in alphabetical order: ffmpeg's
    threads write in any order, and what is recorded must not depend on it."""
    num_messages: int
    """How many lines it wrote to standard error."""
    exceeded: str | None
    """The limit that ended it: ``timeout`` or ``output``; None: it ended by itself."""


def run(command: Sequence[str], *, limits: Limits, side_fd: int | None = None) -> Finished:
    """Run a command to its end or to one of its limits, whichever comes first.

    Args:
        command: program and arguments; no shell is involved.
        limits: what it may use.
        side_fd: an open file (a memfd) that the child inherits under the same number; its content comes
            back as ``side_output``.
    """
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=() if side_fd is None else (side_fd,),
        pipesize=1 << 20,
        # Ctrl-C reaches a terminal's whole process group; ffmpeg would end early and the clip look damaged
        process_group=0,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    listener = _Listener(child.stderr)
    exceeded: list[str] = []

    def kill() -> None:
        exceeded.append("timeout")
        child.kill()

    timer = threading.Timer(limits.timeout_s, kill)
    try:
        memory = limits.memory_mb << 20
        resource.prlimit(child.pid, resource.RLIMIT_AS, (memory, memory))
        # for a child that outlives this process: more than its few threads can use before the timeout
        processor = math.ceil(8 * limits.timeout_s)
        resource.prlimit(child.pid, resource.RLIMIT_CPU, (processor, processor))
        timer.start()
        listener.start()
        output = child.stdout.read(limits.output_bytes + 1)
        if len(output) > limits.output_bytes:
            exceeded.append("output")
            child.kill()
        status = child.wait()
        listener.join()
    finally:
        timer.cancel()
        if timer.is_alive():
            timer.join()
        if child.poll() is None:
            child.kill()
            child.wait()
        child.stdout.close()
        if listener.is_alive():
            listener.join()
        child.stderr.close()
    side = b""
    if side_fd is not None:
        side = os.pread(side_fd, os.fstat(side_fd).st_size, 0)
    return Finished(
        status=status,
        output=output[: limits.output_bytes],
        side_output=side,
        messages=listener.smallest,
        num_messages=listener.count,
        exceeded=exceeded[0] if exceeded else None,
    )


class _Listener(threading.Thread):
    """Drains standard error, so that the child never blocks on it, in constant memory."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self.stream = stream
        self.smallest: list[str] = []
        self.count = 0

    def run(self) -> None:
        while line := self.stream.readline(4096):
            text = _ADDRESS.sub("", line.decode("utf-8", "replace")).strip()
            if text and not _CONSEQUENCES.search(text):
                self.count += 1
                self.smallest = nsmallest(KEPT_MESSAGES, {*self.smallest, text})
