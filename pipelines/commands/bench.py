"""``reelmill bench loader``."""

import json
import os
import tempfile
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from reelmill.datasets import storage
from reelmill.datasets.errors import UsageError
from reelmill.datasets.manifest import FILE_NAME, Manifest
from reelmill.pipelines.commands.common import dataset_option, params_option, say
from reelmill.pipelines.params import dataset_path, given_options, parameter_options, read_params
from reelmill.pipelines.project.runs import TrainSection, chosen_run, run_options

LOADING = (
    *("columns", "split", "batch_size", "clip_frames", "stride", "crop", "flip", "shuffle_shards"),
    *("deterministic", "memory_mib", "service"),
)
"""Options of a run that loading depends on."""
TURNS = 3
"""Each way is measured so often, in turn with the others: what disturbs the machine disturbs all alike."""


@click.group("bench")
def command() -> None:
    """Measure what this host can do, before anyone rents others."""


@command.command("loader")
@click.argument("run", required=False)
@params_option
@dataset_option
@click.option(
    "--replicas",
    type=click.IntRange(min=1),
    metavar="N",
    help="Replicas that share each batch  [params.yaml, else 1].",
)
@click.option(
    "--step-ms",
    type=click.FloatRange(min=0, min_open=True),
    metavar="MS",
    help="Milliseconds that a step of one replica takes when it does not wait for input.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=4.0,
    show_default=True,
    help=f"Seconds that each way is measured, in {TURNS} turns.",
)
@click.option("--json", "json_file", metavar="FILE", help="Figures  [metrics/loader/RUN.throughput.json].")
@click.option("--plot", "plot_file", metavar="FILE", help="Picture  [plots/loader/RUN.png].")
@parameter_options(TrainSection, only=LOADING)
def loader(
    run: str | None,
    params: str,
    dataset: str | None,
    replicas: int | None,
    step_ms: float | None,
    seconds: float,
    json_file: str | None,
    plot_file: str | None,
    **values: Any,
) -> None:
    """Measure clips/s of this dataset on this host, against what replicas need, and what would give more.

    RUN is an entry of the section runs of params.yaml; it may be left out where there is only one. Its batch_size
    is divided among the replicas, and --step-ms is the time that one of them takes for its part.
    """
    content = read_params(params)
    run = chosen_run(content, run, command="reelmill bench loader")
    given = given_options(values, TrainSection) | ({"replicas": replicas} if replicas else {})
    options = run_options(content, run, given)
    path = dataset_path(content, dataset)
    Manifest(storage.join(path, FILE_NAME)).close()  # a wrong path shows before TensorFlow takes its seconds
    need = _need(options, step_ms)

    from reelmill.train.benchmark.report import Supply
    from reelmill.train.keras_setup import quiet_import

    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # loading needs no GPU, and would take its memory
    with quiet_import():
        from reelmill.train.benchmark import measure

    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="reelmill-") as folder:
        ways = measure.ways(path, options, folder)
        interrupted = _measure(ways, seconds / TURNS)
    if not ways[0].rates:
        say("interrupted before anything was measured")
        raise click.exceptions.Exit(130)
    supply = Supply(list(ways), cores=cores, step_clips=options.batch_size, need=need)
    _show(supply)
    figures = json_file or storage.join(options.metrics, "loader", f"{run}.throughput.json")
    picture = plot_file or storage.join(options.plots, "loader", f"{run}.png")
    text = json.dumps({"run": run, **supply.to_json()}, indent=2, ensure_ascii=False) + "\n"
    storage.write_bytes(figures, text.encode())
    storage.write_bytes(picture, supply.picture())
    say(f"figures in {figures}, picture in {picture}")
    say(supply.verdict())
    if interrupted:
        say("interrupted: what was measured by then is above")
        raise click.exceptions.Exit(130)


def _need(options: TrainSection, step_ms: float | None) -> Any:
    from reelmill.train.benchmark.report import Need

    replicas = options.replicas or 1
    if options.batch_size % replicas:
        raise UsageError(f"batch_size {options.batch_size} cannot be divided among {replicas} replicas")
    if step_ms is None:
        return None
    return Need(replicas=replicas, batch=options.batch_size // replicas, step_ms=step_ms)


def _measure(ways: Any, seconds: float) -> bool:
    """Measure every way in several turns; True where the user interrupted it."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task("loader", total=TURNS * len(ways))
        try:
            for turn in range(TURNS):
                for way in ways:
                    progress.update(task, description=way.name)
                    way.turn(seconds)
                    progress.advance(task)
                    if progress.disable:
                        done = f"turn {turn + 1} of {TURNS}, {way.name}: {way.rates[-1]:,.1f} clips/s"
                        click.echo(done, err=True)
        except KeyboardInterrupt:
            return True
    return False


def _show(supply: Any) -> None:
    """The table of all ways: with a frame on a terminal, plain elsewhere."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=120, no_color=True, highlight=False)
    table = Table(title=None, box=None if not console.is_terminal else Table().box, pad_edge=False)
    table.add_column("way", no_wrap=True)
    for name in ("clips/s", "gives", "busy cores"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("costs")
    for way in supply.ways.values():
        gives = "" if way is supply.now else f"x{supply.gain(way):.2f}"
        table.add_row(way.name, f"{way.clips_per_second:,.1f}", gives, f"{way.busy_cores:.1f}", way.costs)
    console.print(table)
    quiet = supply.spread < 0.25
    say(
        f"turns of one and the same way differ by up to {supply.spread:.0%}"
        + ("" if quiet else ": something else uses this machine; repeat when it is quiet")
    )
