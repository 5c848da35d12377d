import io
import logging
import os
import pty
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from reelmill.pipelines.execution import progress
from reelmill.pipelines.execution.progress import ProgressMonitor, ProgressReporter


def wait_for(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_counts_of_several_workers_add_up() -> None:
    with ProgressMonitor("frames", clips=40, shards=4) as receiver:

        def work() -> None:
            sender = ProgressReporter(receiver.address)
            for _ in range(10):
                sender.add(clips=1, frames=7)
            sender.add(shards=1)
            sender.close()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    counts = receiver.counts
    assert (counts.clips, counts.frames, counts.shards) == (40, 280, 4)


def test_counts_sent_last_are_not_lost() -> None:
    """What was sent before the context ends is counted, though nobody waits for it."""
    for _ in range(10):
        with ProgressMonitor("x", clips=1) as receiver:
            sender = ProgressReporter(receiver.address)
            sender.add(clips=1)
            sender.close()
        assert receiver.counts.clips == 1


def test_times_tell_start_up_from_work() -> None:
    with ProgressMonitor("x", clips=3) as receiver:
        assert (receiver.startup_s, receiver.working_s) == (0, 0)
        time.sleep(0.3)
        sender = ProgressReporter(receiver.address)
        wait_for(lambda: receiver.startup_s > 0)
        time.sleep(0.3)
        sender.add(clips=3)
        sender.close()
        wait_for(lambda: receiver.counts.clips == 3)
        time.sleep(0.5)
    assert 0.25 < receiver.startup_s < 3
    assert 0.25 < receiver.working_s < receiver.startup_s + 3


@pytest.mark.parametrize("address", [None, "nowhere/at/all"])
def test_a_sender_without_a_receiver_does_nothing(address: str | None) -> None:
    sender = ProgressReporter(address)
    sender.add(clips=5)
    sender.flush()
    sender.close()
    sender.close()


def test_a_receiver_that_goes_away_harms_nobody() -> None:
    with ProgressMonitor("x", clips=3) as receiver:
        sender = ProgressReporter(receiver.address)
    assert not os.path.exists(receiver.address)
    try:
        for _ in range(3):
            sender.add(clips=1)
            sender.flush()
        sender.close()
    finally:
        if sender._socket is not None:
            sender._socket.close()


def test_a_receiver_that_is_busy_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads: the socket's buffer fills, counts are kept for later, add() returns at once."""
    monkeypatch.setattr(progress, "SEND_EVERY_S", -1.0)
    receiver = ProgressMonitor("x", clips=1)
    receiver._socket.bind(receiver.address)
    sender = ProgressReporter(receiver.address)
    begun = time.monotonic()
    for _ in range(2000):
        sender.add(clips=1)
    assert time.monotonic() - begun < 5
    receiver._bar.start()
    receiver._thread.start()
    wait_for(lambda: receiver.counts.clips > 0)
    time.sleep(0.1)
    sender.close()
    receiver.__exit__(None, None, None)
    assert receiver.counts.clips == 2000


def test_lines_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY_S", 0.1)
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Keep()
    progress.logger.addHandler(handler)
    level = progress.logger.level
    progress.logger.setLevel(logging.INFO)
    try:
        with ProgressMonitor("frames", clips=10, shards=2) as receiver:
            sender = ProgressReporter(receiver.address)
            sender.add(clips=5, frames=100, shards=1)
            sender.flush()
            wait_for(lambda: any("5 of 10" in line for line in lines))
            sender.close()
    finally:
        progress.logger.removeHandler(handler)
        progress.logger.setLevel(level)
    line = next(line for line in lines if "5 of 10" in line)
    assert line.startswith("frames: 5 of 10 clips, ")
    assert " clips/s  " in line
    assert " frames/s  1/2 shards, " in line
    assert line.endswith(" s left")


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(
        progress,
        "Console",
        lambda **_: Console(file=screen, force_terminal=True, width=120, color_system=None),
    )
    with ProgressMonitor("scan", clips=4, frames=False) as receiver:
        sender = ProgressReporter(receiver.address)
        sender.add(clips=4)
        sender.close()
        wait_for(lambda: receiver.counts.clips == 4)
        time.sleep(0.3)
    drawn = screen.getvalue()
    assert "scan" in drawn
    assert "4/4 clips" in drawn
    assert "frames/s" not in drawn


def open_files() -> set[str]:
    """What this process has open, each with its number; the listing itself is gone when it is looked up."""
    folder = "/proc/self/fd"
    return {
        f"{name} {os.readlink(f'{folder}/{name}')}"
        for name in os.listdir(folder)
        if os.path.lexists(f"{folder}/{name}")
    }


def test_nothing_is_left_behind() -> None:
    threads, opened = set(threading.enumerate()), open_files()
    with pytest.raises(KeyboardInterrupt), ProgressMonitor("x", clips=1) as receiver:
        raise KeyboardInterrupt
    # Only what is new counts: a thread that an earlier test left dying may end in between.
    assert not set(threading.enumerate()) - threads
    assert not open_files() - opened
    assert not Path(receiver.address).parent.exists()


def test_a_sender_in_another_terminal_session() -> None:
    """Workers have no terminal; the socket works between unrelated processes all the same."""
    with ProgressMonitor("x", clips=1) as receiver:
        child, _ = pty.fork()
        if child == 0:
            sender = ProgressReporter(receiver.address)
            sender.add(clips=1)
            sender.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    assert receiver.counts.clips == 1
