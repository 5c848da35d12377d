"""Progress of a build while other processes do the work.

Workers on this machine send small datagrams to a Unix socket; the main process draws a bar from them on a
terminal, and logs a line now and then elsewhere. Progress never holds work up: a datagram that cannot be
sent is dropped.
"""

import json
import logging
import os
import socket
import tempfile
import threading
import time
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LOG_EVERY_S = 10.0
SEND_EVERY_S = 0.25

logger = logging.getLogger("reelmill")


class ProgressReporter:
    """A worker's end. Counts are gathered and sent a few times a second.

    Args:
        address: path of the main process's socket; None or one of another machine: nothing is sent.
    """

    def __init__(self, address: str | None) -> None:
        self._socket: socket.socket | None = None
        self._counts: dict[str, int] = {}
        self._sent = 0.0
        if address is not None and os.path.exists(address):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            self._socket.connect(address)
            self.add(workers=1)
            self.flush()

    def add(self, **counts: int) -> None:
        """Add to the counts ``clips``, ``frames``, ``shards``, ``workers``."""
        for name, value in counts.items():
            self._counts[name] = self._counts.get(name, 0) + value
        if time.monotonic() - self._sent > SEND_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Send what was gathered."""
        if self._socket is None or not self._counts:
            return
        try:
            self._socket.send(json.dumps(self._counts).encode())
        except OSError:
            return  # the bar is late or gone; the counts stay for the next try
        self._counts = {}
        self._sent = time.monotonic()

    def close(self) -> None:
        """Send the rest and close."""
        self.flush()
        if self._socket is not None:
            self._socket.close()
            self._socket = None


@dataclass(slots=True)
class Counts:
    """What has been done so far."""

    clips: int = 0
    frames: int = 0
    shards: int = 0


class ProgressMonitor:
    """The main process's end: a context that shows progress while it is open.

    Args:
        title: what is going on, as ``frames``.
        clips: how many clips there are in all.
        shards: how many shards; 0: the work has none.
        frames: whether the work counts frames.
    """

    def __init__(self, title: str, *, clips: int, shards: int = 0, frames: bool = True) -> None:
        self.title, self.total_clips, self.total_shards, self.has_frames = title, clips, shards, frames
        self.counts = Counts()
        self.started = time.monotonic()
        self._first = self._last = self.started
        self._folder = tempfile.TemporaryDirectory(prefix="reelmill-")
        self.address = os.path.join(self._folder.name, "progress")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(0.2)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="progress", daemon=True)
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("clips"),
            TextColumn("{task.fields[rates]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=clips, rates="")

    def __enter__(self) -> "ProgressMonitor":
        self._socket.bind(self.address)
        self._bar.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self._bar.stop()
        self._socket.close()
        self._folder.cleanup()

    @property
    def startup_s(self) -> float:
        """Seconds until the first worker was ready."""
        return self._first - self.started

    @property
    def working_s(self) -> float:
        """Seconds from then to the last sign of work."""
        return self._last - self._first

    def _listen(self) -> None:
        logged = self.started
        while True:
            try:
                message = json.loads(self._socket.recv(4096))
            except TimeoutError:
                if self._done.is_set():
                    return
            else:
                self._last = time.monotonic()
                if message.get("workers") and self._first == self.started:
                    self._first = self._last
                self.counts.clips += message.get("clips", 0)
                self.counts.frames += message.get("frames", 0)
                self.counts.shards += message.get("shards", 0)
            self._bar.update(self._task, completed=self.counts.clips, rates=self._rates())
            if self._bar.disable and time.monotonic() - logged > LOG_EVERY_S:
                logged = time.monotonic()
                logger.info(
                    "%s: %d of %d clips, %s%s",
                    self.title,
                    self.counts.clips,
                    self.total_clips,
                    self._rates(),
                    self._left(),
                )

    def _rates(self) -> str:
        if self._first == self.started:
            return "starting workers"
        seconds = max(time.monotonic() - self._first, 1e-3)
        text = f"{self.counts.clips / seconds:,.1f} clips/s"
        if self.has_frames:
            text += f"  {self.counts.frames / seconds:,.0f} frames/s"
        if self.total_shards:
            text += f"  {self.counts.shards}/{self.total_shards} shards"
        return text

    def _left(self) -> str:
        if not self.counts.clips:
            return ""
        seconds = (
            (time.monotonic() - self.started) / self.counts.clips * (self.total_clips - self.counts.clips)
        )
        return f", {seconds / 60:.0f} min left" if seconds > 90 else f", {max(seconds, 0):.0f} s left"
