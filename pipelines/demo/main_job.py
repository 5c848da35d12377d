"""The demo from end to end: the project, its collection, ``dvc repro``, and the summary."""

import logging
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from reelmill.datasets.errors import BuildError
from reelmill.pipelines.demo.collection import make_collection
from reelmill.pipelines.demo.summary import read_summary, show
from reelmill.pipelines.params import read_params
from reelmill.pipelines.project.scaffold import Project, create

SEED = 0
"""Of the collection. The repository's dvc.lock holds hashes of what it gives."""
PROJECT = Project(
    dataset="data/demo",
    raw="data/demo-raw",
    columns=("flow",),
    features={
        # a real network where there is a net: here random weights, which keep colours and shapes apart well enough
        "rgb_mobilenet": {
            "model": "MobileNet",
            "layer": "conv_pw_3_relu",
            "weights": "random",
            "size": 112,
            "every": 8,
        }
    },
    runs={
        "frames": {"columns": ["frames"], "model": "frame_cnn"},
        "features": {"columns": ["rgb_mobilenet"], "model": "feature_mlp", "stride": 1, "epochs": 40},
        "flow": {"columns": ["flow"], "model": "frame_cnn"},
        "two_stream": {"columns": ["flow", "frames"], "model": "two_stream", "epochs": 6},
    },
    settings={"scan": {"name": "demo"}, "frames": {"short_side": 128}, "train": {"crop": 112}},
)
"""The project in the repository's root, and the one that the demo makes elsewhere."""
DEFAULT_FOLDER = "reelmill-demo"

logger = logging.getLogger("reelmill")


def run_demo(folder: str | None) -> None:
    """Run the demo; continues an earlier run in the same folder.

    Args:
        folder: where; None: here if this is the demo's project, else :data:`DEFAULT_FOLDER`.

    Raises:
        UsageError: the folder holds another project, or files in the collection's place.
        BuildError: a stage failed.
    """
    started = time.monotonic()
    place = folder or ("." if is_demo(".") else DEFAULT_FOLDER)
    if not is_demo(place):
        create(place, PROJECT, git=False)
    root = Path(place)
    with _progress() as report:
        made = make_collection(str(root / PROJECT.raw), seed=SEED, progress=report)
    state = "made" if made.made else "already there"
    logger.info(
        "collection: %d videos and %d broken files, %.0f MB, %s in %s",
        *(made.good, made.broken, made.file_bytes / 1e6, state, made.folder),
    )
    repro(root)
    show(
        read_summary(root, dataset=PROJECT.dataset),
        Console(),
        project=os.path.normpath(place),
        dataset=PROJECT.dataset,
        raw=PROJECT.raw,
        seconds=time.monotonic() - started,
    )


def is_demo(folder: str) -> bool:
    """Whether ``folder`` holds the demo's project, edited or not."""
    params, stages = Path(folder) / "params.yaml", Path(folder) / "dvc.yaml"
    if not params.exists() or not stages.exists():
        return False
    content = read_params(str(params))
    scan = content.get("scan")
    return (
        content.get("dataset") == PROJECT.dataset
        and isinstance(scan, dict)
        and scan.get("raw") == PROJECT.raw
    )


def repro(project: Path) -> None:
    """Run ``dvc repro``; what it prints goes where ours goes.

    Raises:
        BuildError: it failed; it has said why.
    """
    # the stages call `reelmill`, which is beside this Python whether or not its environment is activated
    scripts = {str(Path(sys.executable).parent): None, sysconfig.get_path("scripts"): None}
    path = os.pathsep.join([*scripts, os.environ.get("PATH", os.defpath)])
    environment = {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1"}
    with subprocess.Popen([sys.executable, "-m", "dvc", "repro"], cwd=project, env=environment) as child:
        try:
            status = child.wait()
        except KeyboardInterrupt:
            child.wait()  # it was interrupted as well, and puts its state in order
            raise
    if status != 0:
        raise BuildError(f"`dvc repro` failed in {project} with status {status}; what it said is above")


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, log lines elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn("[bold]making videos"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=None)

        def report(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            if not console.is_terminal and (done == total or done % 50 == 0):
                logger.info("making videos: %d of %d", done, total)

        yield report
