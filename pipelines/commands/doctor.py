"""``reelmill doctor``."""

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version

import click

from reelmill.datasets.errors import BuildError
from reelmill.features.video.ffmpeg import binary, versions
from reelmill.pipelines.commands.common import say
from reelmill.pipelines.execution.runner import available_cores

PACKAGES = (
    "reelmill",
    "apache-beam",
    "pyarrow",
    "av",
    "opencv-contrib-python-headless",
    "numpy",
    "protobuf",
    "dvc",
)
TRAINING_PACKAGES = ("tensorflow", "keras", "scikit-learn")
DECODERS = ("h264", "hevc", "mpeg4", "mpeg2video", "vp8", "vp9", "libdav1d", "mjpeg", "wmv2", "vc1", "theora")
FILTERS = ("scale", "bwdif", "fps", "trim", "setpts", "settb")


@click.command("doctor")
def command() -> None:
    """Show what this machine has: ffmpeg, codecs, processors, GPUs, versions; exit status 1 if a part is missing."""
    missing = [*_packages(PACKAGES, needed=True), *_ffmpeg()]
    say("for training:")
    _packages(TRAINING_PACKAGES, needed=False)
    _machine()
    if missing:
        raise BuildError(f"missing: {', '.join(missing)}")
    say("ready    next: reelmill demo")


def _packages(names: tuple[str, ...], *, needed: bool) -> list[str]:
    missing = []
    for name in names:
        try:
            say(f"  {name:<32} {version(name)}")
        except PackageNotFoundError:
            say(f"  {name:<32} {'MISSING' if needed else 'not installed (the train extra has it)'}")
            missing.append(name)
    return missing if needed else []


def _ffmpeg() -> list[str]:
    try:
        path, found = binary(), versions()
    except (OSError, subprocess.SubprocessError) as error:
        say(f"  ffmpeg                           MISSING: {error}")
        return ["ffmpeg"]
    say(f"  {'ffmpeg':<32} {found['ffmpeg']}  {path}")
    decoders = _list(path, "-decoders")
    filters = _list(path, "-filters")
    lacking = [name for name in DECODERS if name not in decoders] + [
        name for name in FILTERS if name not in filters
    ]
    say(f"  {'decoders and filters':<32} {'all there' if not lacking else 'lacking ' + ', '.join(lacking)}")
    return [f"ffmpeg's {name}" for name in lacking]


def _list(ffmpeg: str, what: str) -> set[str]:
    done = subprocess.run(
        [ffmpeg, "-hide_banner", what], capture_output=True, text=True, check=True, timeout=60
    )
    return {line.split()[1] for line in done.stdout.splitlines() if len(line.split()) > 1}


def _machine() -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    say(f"  {'python':<32} {platform.python_version()} on {platform.system()} {platform.machine()}")
    say(f"  {'processors':<32} {available_cores()}")
    say(f"  {'memory':<32} {memory / 2**30:.0f} GiB")
    say(f"  {'free disk here':<32} {shutil.disk_usage('.').free / 2**30:.0f} GiB")
    if shutil.which("nvidia-smi"):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=60)
        for line in listed.stdout.splitlines():
            say(f"  {'GPU':<32} {line}")
    else:
        say(f"  {'GPU':<32} none found")
