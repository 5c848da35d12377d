"""What the demo ends with: what was made, how fast, how well the model does, and where everything lies."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from reelmill.datasets import storage
from reelmill.datasets.column import Column, column_names
from reelmill.datasets.errors import DatasetError
from reelmill.pipelines.params import read_params
from reelmill.pipelines.project.results import Result, results_of

GROUPS = ("appearance_", "motion_")
"""What the names of the demo's classes begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitShards:
    """The shards of one split."""

    split: str
    clips: int
    frames: int
    sizes: list[int]
    """Length of each shard in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnTotals:
    """One column."""

    name: str
    clips: int
    """Written."""
    steps: int
    bytes: int
    steps_per_s: float | None
    """Of the run that built it; None: not recorded."""
    figures: dict[str, float]
    """Means over all steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What is in a demo project after a run."""

    quarantined: list[tuple[str, str]]
    """Reason and clip_id, of frames."""
    damaged: list[str]
    """Clips that were written though the decoder complained."""
    splits: list[SplitShards]
    """Of frames."""
    columns: list[ColumnTotals]
    """Frames first, then those made from it."""
    results: Sequence[Result]
    """What each training reached."""


def read_summary(project: Path, *, dataset: str) -> Summary:
    """Gather the summary from a project's files.

    Args:
        project: the project's folder.
        dataset: the dataset's folder below it.

    Raises:
        DatasetError: the frames column is missing, or a metrics file malformed.
        UsageError: a training or its measurement did not run.
    """
    folder = str(project / dataset)
    column = Column(folder, "frames")
    ledger = column.ledger().to_pylist()
    index = column.index().to_pylist()
    clips = Counter(row["split"] for row in index)
    frames: Counter[str] = Counter()
    for row in index:
        frames[row["split"]] += row["steps"]
    sizes: dict[str, list[int]] = {}
    for shard in column.description.shard_list():
        sizes.setdefault(shard.split, []).append(storage.size(column.shard_path(shard)))
    names = ["frames", *(name for name in column_names(folder) if name != "frames")]
    params = read_params(str(project / "params.yaml"))
    return Summary(
        quarantined=sorted((r["reason"], r["clip_id"]) for r in ledger if r["outcome"] == "quarantined"),
        damaged=sorted(r["clip_id"] for r in ledger if r["outcome"] == "written" and r["decode_errors"]),
        splits=[
            SplitShards(split=split, clips=clips[split], frames=frames[split], sizes=sizes[split])
            for split in sorted(sizes, key=["train", "val", "test"].index)
        ],
        columns=[_column_totals(project, Column(folder, name)) for name in names],
        results=results_of(params, root=str(project)),
    )


def _column_totals(project: Path, column: Column) -> ColumnTotals:
    about = column.description
    speed = _read_json(project / "metrics" / f"{about.name}.throughput.json")
    return ColumnTotals(
        name=about.name,
        clips=about.totals["written"],
        steps=about.totals["steps"],
        bytes=about.totals["bytes"],
        steps_per_s=speed.get("steps_per_s"),
        figures=about.figures,
    )


def _read_json(path: Path) -> dict[str, Any]:
    """Content of a metrics file; empty where the machine has none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DatasetError(f"{path} is not valid JSON: {error}") from None
    assert isinstance(content, dict)
    return content


def show(summary: Summary, console: Console, *, project: str, dataset: str, raw: str, seconds: float) -> None:
    """Print the summary.

    Args:
        summary: what to print.
        console: where to.
        project: the project's folder as the user named it.
        dataset: the dataset's folder below it.
        raw: the collection's folder below it.
        seconds: how long the demo took.
    """
    console.print()
    console.rule("reelmill demo")
    frames = summary.columns[0]
    speed = f", {frames.steps_per_s:,.0f} frames/s" if frames.steps_per_s else ""
    console.print(
        f"[bold]{frames.clips}[/] clips written, [bold]{len(summary.quarantined)}[/] quarantined; "
        f"{frames.steps:,} frames{speed}"
    )
    console.print(_quarantine_table(summary))
    console.print(_shard_table(summary))
    console.print(_column_table(summary))
    console.print(_result_table(summary))
    console.print("(test accuracy; motion: 4 classes that no single frame tells apart, guessing gives 25%)")
    console.print(_place_table(project, dataset=dataset, raw=raw))
    console.print("\n[bold]next[/]")
    commands = [f"reelmill inspect {dataset}", f"reelmill verify {dataset}", "dvc metrics show"]
    for command in [*([f"cd {project}"] if project != "." else []), *commands]:
        console.print(f"  {command}", highlight=False, soft_wrap=True)
    console.print(f"  delete a video of {raw} or change params.yaml, then: dvc repro", soft_wrap=True)
    console.print(f"\ndone in {seconds:.0f} s")


def _place_table(project: str, *, dataset: str, raw: str) -> Table:
    table = _table("where", "what")
    table.add_row(_below(project, raw), "the videos")
    table.add_row(_below(project, dataset), "manifest.parquet and the columns")
    table.add_row(_below(project, "model"), "the models")
    table.add_row(_below(project, "metrics"), "counts, speed, accuracy")
    table.add_row(_below(project, "params.yaml"), "everything that can be set")
    return table


def _table(*headers: str) -> Table:
    return Table(*headers, box=None, header_style="bold", padding=(0, 3, 0, 0))


def _below(project: str, path: str) -> str:
    return path if project == "." else f"{project}/{path}"


def _quarantine_table(summary: Summary) -> Table:
    table = _table("quarantined because", "clip")
    for reason, clip_id in summary.quarantined:
        table.add_row(reason, clip_id)
    for clip_id in summary.damaged:
        table.add_row("(damaged, but written)", clip_id)
    return table


def _shard_table(summary: Summary) -> Table:
    table = _table("split")
    for name in ("clips", "frames", "shards", "MB", "MB per shard"):
        table.add_column(name, justify="right")
    for split in summary.splits:
        lowest, highest = min(split.sizes) / 1e6, max(split.sizes) / 1e6
        table.add_row(
            split.split,
            f"{split.clips:,}",
            f"{split.frames:,}",
            str(len(split.sizes)),
            f"{sum(split.sizes) / 1e6:.1f}",
            f"{lowest:.1f} to {highest:.1f}",
        )
    return table


def _column_table(summary: Summary) -> Table:
    table = _table("column")
    for name in ("clips", "steps", "MB", "steps/s"):
        table.add_column(name, justify="right")
    table.add_column("")
    for column in summary.columns:
        saturated = column.figures.get("saturated")
        table.add_row(
            column.name,
            f"{column.clips:,}",
            f"{column.steps:,}",
            f"{column.bytes / 1e6:.1f}",
            f"{column.steps_per_s:,.0f}" if column.steps_per_s else "",
            f"{saturated:.2%} of pixels saturated" if saturated is not None else "",
        )
    return table


def _result_table(summary: Summary) -> Table:
    table = _table("training", "on")
    for name in (*GROUPS, "all"):
        table.add_column(name.rstrip("_"), justify="right")
    for result in summary.results:
        shares = [*(result.group(prefix) for prefix in GROUPS), float(result.metrics["top1"])]
        cells = ("" if share is None else f"{share:.0%}" for share in shares)
        table.add_row(result.run, ", ".join(result.columns), *cells)
    return table
