"""``reelmill demo`` from end to end, on a smaller collection than the real one's."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from reelmill.datasets.errors import BuildError, DatasetError
from reelmill.pipelines.cli import main
from reelmill.pipelines.demo import main_job
from reelmill.pipelines.demo.collection import BROKEN, ClipCounts, make_collection
from reelmill.pipelines.demo.summary import GROUPS, ColumnTotals, SplitShards, Summary, read_summary, show
from reelmill.pipelines.project.results import Result
from reelmill.pipelines.project.scaffold import Project, create

REPOSITORY = Path(__file__).parents[3]


def _dvc(*arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.slow
def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # no environment is activated
    small = ClipCounts(train=2, val=1, test=1)
    monkeypatch.setattr(main_job, "make_collection", partial(make_collection, counts=small))
    settings: dict[str, dict[str, Any]] = {
        "scan": {"name": "demo"},
        "frames": {"short_side": 128, "max_quarantine": 0.2},
        "flow": {"method": "dis_ultrafast"},
        "train": {"epochs": 1, "batch_size": 8, "crop": 112},
    }
    # a training takes mostly the start of TensorFlow, and so does a column of features: these tell all
    runs = {name: {**main_job.PROJECT.runs[name], "epochs": 1} for name in ("frames", "two_stream")}
    features = {"rgb_mobilenet": main_job.PROJECT.features["rgb_mobilenet"]}
    project = replace(main_job.PROJECT, settings=settings, runs=runs, features=features)
    monkeypatch.setattr(main_job, "PROJECT", project)

    main(["demo"])

    root = tmp_path / "reelmill-demo"
    said = capfd.readouterr().out
    summary = read_summary(root, dataset="data/demo")
    assert {clip_id for _, clip_id in summary.quarantined} | set(summary.damaged) == set(BROKEN)
    assert summary.damaged == ["train/motion_right_up/cut_short.mp4"]
    assert [(s.split, s.clips) for s in summary.splits] == [("train", 17), ("val", 8), ("test", 8)]
    assert all(70 * s.clips - 70 < s.frames <= 80 * s.clips for s in summary.splits)
    assert [(result.run, result.model) for result in summary.results] == [
        ("frames", "frame_cnn"),
        ("two_stream", "two_stream"),
    ]
    assert all(result.group(prefix) is not None for result in summary.results for prefix in GROUPS)
    assert [(c.name, c.clips) for c in summary.columns] == [
        ("frames", 33),
        ("flow", 33),
        ("rgb_mobilenet", 33),
    ]
    assert all(c.steps_per_s for c in summary.columns)
    assert summary.columns[0].steps == summary.columns[1].steps > 7 * summary.columns[2].steps
    assert set(summary.columns[1].figures) >= {"saturated", "quantisation_error"}
    for word in (
        "33 clips written, 6 quarantined",
        "frames/s",
        "no_video_stream",
        "accuracy",
        "reelmill verify",
    ):
        assert word in said

    # nothing is done a second time, and a parameter of train touches train alone
    assert "up to date" in _dvc("repro", folder=root)
    params = root / "params.yaml"
    text = params.read_text()
    params.write_text(text.replace("learning_rate: 0.003", "learning_rate: 0.002"))
    changed = list(json.loads(_dvc("status", "--json", folder=root)))
    assert changed == ["train@frames", "train@two_stream"]
    # what one run has of its own touches that one, and an option of flow what is made from it
    params.write_text(text.replace("model: two_stream, epochs: 1}", "model: two_stream, epochs: 2}"))
    assert list(json.loads(_dvc("status", "--json", folder=root))) == ["train@two_stream"]
    params.write_text(text.replace("saturation: 20.0", "saturation: 10.0"))
    assert list(json.loads(_dvc("status", "--json", folder=root))) == ["flow"]

    # no lock file depends on the hour or on the place
    lock = (root / "dvc.lock").read_text()
    assert "throughput" not in lock
    assert str(tmp_path) not in lock
    lock_outs = [out["path"] for stage in yaml.safe_load(lock)["stages"].values() for out in stage["outs"]]
    assert {"data/demo/frames", "data/demo/flow", "data/demo/rgb_mobilenet"} < set(lock_outs)


def test_the_repository_is_a_demo() -> None:
    assert main_job.is_demo(str(REPOSITORY))


def test_another_project_is_none(tmp_path: Path) -> None:
    assert not main_job.is_demo(str(tmp_path))
    (tmp_path / "videos").mkdir()
    create(str(tmp_path / "x"), Project(dataset="data/x", raw="../videos"), git=False)
    assert not main_job.is_demo(str(tmp_path / "x"))


def test_another_project_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "dvc.yaml").write_text("stages: {}\n")
    with pytest.raises(SystemExit) as stop:
        main(["demo", "x"])
    assert stop.value.code == 2
    assert "x/dvc.yaml is there already" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["dvc.yaml"]


def test_a_failing_stage(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    create(str(tmp_path / "x"), main_job.PROJECT, git=False)
    (tmp_path / "x" / "dvc.yaml").write_text("stages:\n  scan:\n    cmd: exit 7\n")
    with pytest.raises(BuildError, match="`dvc repro` failed"):
        main_job.repro(tmp_path / "x")
    assert "exited with 7" in capfd.readouterr().err


def test_summary_without_a_column(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="build it first"):
        read_summary(tmp_path, dataset="data/demo")


def test_summary_fits_a_narrow_terminal() -> None:
    summary = Summary(
        quarantined=[("no_video_stream", "train/appearance_discs/audio_only.mp4")],
        damaged=["train/motion_right_up/cut_short.mp4"],
        splits=[SplitShards(split="train", clips=97, frames=7257, sizes=[2_000_000, 4_000_000])],
        columns=[
            ColumnTotals(name="frames", clips=97, steps=7257, bytes=6_000_000, steps_per_s=None, figures={}),
            ColumnTotals(
                name="flow",
                clips=96,
                steps=7200,
                bytes=3_000_000,
                steps_per_s=1234.5,
                figures={"saturated": 0.031},
            ),
        ],
        results=[
            Result(
                run=run,
                model=run,
                columns=columns,
                metrics={
                    "top1": all_classes,
                    "mean_class_accuracy": 0.0,
                    "class_accuracy": {"appearance_discs": appearance, "motion_left_up": motion},
                },
            )
            for run, columns, all_classes, appearance, motion in [
                ("frames", ["frames"], 0.625, 1.0, 0.25),
                ("lstm", ["flow_mobilenet", "rgb_mobilenet"], 0.6, 0.2, 1.0),
            ]
        ],
    )
    console = Console(width=80, record=True, force_terminal=False)
    show(summary, console, project="reelmill-demo", dataset="data/demo", raw="data/demo-raw", seconds=93.6)
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    assert "97 clips written, 1 quarantined; 7,257 frames" in lines
    assert any(line.split() == ["train", "97", "7,257", "2", "6.0", "2.0", "to", "4.0"] for line in lines)
    assert "  cd reelmill-demo" in lines
    assert any(line.split() == ["frames", "frames", "100%", "25%", "62%"] for line in lines)
    assert "lstm       flow_mobilenet, rgb_mobilenet          20%     100%   60%" in lines
    assert any(
        line.split()[:5] == ["flow", "96", "7,200", "3.0", "1,234"] and "3.10%" in line for line in lines
    )
    assert all(len(line) <= 80 for line in lines)
