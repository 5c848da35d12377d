"""Memory and speed of a scan: memory should not grow with the number of videos.

Scans collections of 1,000 and 10,000 small videos, each in a new process, and prints the peak memory of that
process and of its largest worker.

    python benchmarks/scan.py [--videos 1000 10000]
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from reelmill.features.video.ffmpeg import binary
from reelmill.pipelines.scan.scanner import ScanSection, scan

CLASSES = 100


def make_collection(folder: Path, videos: int) -> None:
    """Create a collection of hard links to one small video, which is faster than encoding many."""
    video = folder / "video.avi"
    source = "testsrc2=size=96x64:rate=25:duration=0.4"
    command = [binary(), "-nostdin", "-loglevel", "error"]
    command += ["-f", "lavfi", "-i", source, "-c:v", "mpeg4", str(video)]
    subprocess.run(command, check=True)
    for number in range(videos):
        target = folder / "raw" / f"class{number % CLASSES:02d}" / f"video{number:06d}.avi"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(video, target)


def measure(folder: str, videos: int) -> None:
    """Scan a collection and print the speed and the peak memory of this process and of its workers."""
    started = time.monotonic()
    result = scan(os.path.join(folder, "set"), ScanSection(raw=os.path.join(folder, "raw")))
    seconds = time.monotonic() - started
    assert result.clips == videos
    assert not result.probe_errors
    main, workers = (
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(
        f"{videos:>8,} videos  main process peak {main:5,.0f} MiB  largest worker {workers:5,.0f} MiB  "
        f"{videos / seconds:6,.0f} videos/s including the start-up of the workers"
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        measure(arguments.folder, arguments.videos[0])
        return
    for videos in arguments.videos:
        with tempfile.TemporaryDirectory(prefix="reelmill-bench-") as folder:
            make_collection(Path(folder), videos)
            command = [sys.executable, __file__, "--videos", str(videos), "--folder", folder]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
