"""Evaluation with several labels, with views, and the files it writes; test_fit.py has the plain case."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from sklearn.metrics import average_precision_score

import reelmill
from reelmill.datasets.errors import DatasetError, UsageError
from reelmill.datasets.manifest import Manifest
from reelmill.datasets.synthetic import Recording, encode, texture, write_dataset
from reelmill.pipelines.commands.evaluate import command
from reelmill.train import models
from reelmill.train.evaluation.evaluate import Evaluation, confusion_png, evaluate
from reelmill.train.models import saving
from reelmill.train.options import EvaluateOptions

# Keras 3.15 with NumPy 2.4
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NAMES = ["cook", "dance", "run", "sing", "walk"]
HAS = [["cook"], ["dance", "sing"], [], ["run", "sing"], ["sing"], ["cook", "dance", "run"]]
"""Labels of the clips; nobody walks."""


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Clips that have no label, one or several; in the split ``bare`` none has one."""
    path = str(tmp_path_factory.mktemp("several") / "set")
    recordings = [
        Recording(
            clip_id=f"{split}-{i}",
            split=split,
            labels=labels,
            jpegs=[encode(texture(36, 44, seed=10 * i + step)) for step in range(5)],
            height=36,
            width=44,
        )
        for split, every in (("test", HAS), ("bare", [[], []]))
        for i, labels in enumerate(every)
    ]
    write_dataset(path, recordings, labels=NAMES, shards=2)
    return path


def save_model(classes: list[str], *, labels: Any) -> Any:
    """An untrained model in the folder model/frames."""
    keras.utils.set_random_seed(3)
    inputs = {"frames": models.InputSpec((2, 32, 32, 3), "uint8")}
    model = models.build("frame_cnn", inputs=inputs, classes=len(classes), labels=labels)
    model.layers[-1].set_weights(
        [10 * w for w in model.layers[-1].get_weights()]
    )  # some above 0.5, some below
    info = saving.ModelInfo(
        model="frame_cnn",
        columns=["frames"],
        class_names=classes,
        clip_frames=2,
        stride=1,
        crop=32,
        labels=labels,
    )
    saving.save(model, info, "model/frames")
    return model


def test_several_labels_from_the_dataset_to_the_files(
    several: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = save_model(NAMES, labels="multi")
    Path("params.yaml").write_text(f"dataset: {several}\nevaluate: {{batch_size: 4}}\n")
    done = CliRunner().invoke(command, ["--num-clips", "2", "--num-crops", "3"], catch_exceptions=False)

    # the same by hand: 2 windows of 3 crops
    (batch,) = reelmill.load(
        several,
        split="test",
        clip_frames=2,
        stride=1,
        crop=32,
        num_clips=2,
        num_crops=3,
        batch_size=6,
        labels="multi",
    )
    views = [np.asarray(model({"frames": batch["frames"][:, view]}, training=False)) for view in range(6)]
    probabilities = np.mean(views, axis=0)
    truth = batch["label"].numpy() > 0
    assert sorted(map(tuple, truth.tolist())) == sorted(tuple(name in has for name in NAMES) for has in HAS)
    found = json.loads(Path("metrics/evaluate/frames.json").read_text())
    four = average_precision_score(truth[:, :4], probabilities[:, :4], average=None)
    assert found["average_precision"] == pytest.approx(dict(zip(NAMES, four, strict=False)), abs=1e-5)
    assert found["map"] == pytest.approx(np.mean(four), abs=1e-5)
    assert (found["clips"], found["classes_without_clips"]) == (6, 1)
    assert found["class_clips"] == {"cook": 2, "dance": 2, "run": 2, "sing": 3}
    right = [t[p.argmax()] for p, t in zip(probabilities, truth, strict=True) if t.any()]
    assert found["top1"] == pytest.approx(np.mean(right), abs=1e-6)
    assert f"mAP {found['map']:.3f}" in done.output

    rows = list(csv.DictReader(Path("plots/confusion/frames.csv").read_text().splitlines()))
    ids = [name.decode() for name in batch["clip_id"].numpy()]
    for clip, has, p in zip(ids, truth, probabilities, strict=True):
        actual = [n for n, yes in zip(NAMES, has, strict=True) if yes] or ["(none)"]
        said = [n for n, share in zip(NAMES, p, strict=True) if share >= 0.5] or ["(none)"]
        pairs = [(row["actual"], row["predicted"]) for row in rows if row["clip_id"] == clip]
        assert pairs == [(a, s) for a in actual for s in said]
    assert Path("plots/confusion/frames.png").read_bytes().startswith(b"\x89PNG")


def test_a_split_without_labels(several: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(NAMES, labels="multi")
    with pytest.raises(DatasetError, match="no clip of split 'bare' has a label"):
        evaluate(several, EvaluateOptions(split="bare"))
    assert not Path("metrics").exists()


def test_clips_with_several_labels_need_a_model_for_them(
    several: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(NAMES, labels="single")
    with pytest.raises(UsageError, match="labels where labels='single' needs one"):
        evaluate(several, EvaluateOptions())


def test_views_of_a_clip_with_one_label(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Manifest(f"{dataset}/manifest.parquet") as manifest:
        model = save_model(manifest.info.labels, labels="single")
    found = evaluate(dataset, EvaluateOptions(num_clips=2, num_crops=10, batch_size=5))
    (batch,) = reelmill.load(
        dataset, split="test", clip_frames=2, stride=1, crop=32, num_clips=2, num_crops=10, batch_size=13
    )
    each = [np.asarray(model({"frames": batch["frames"][:, view]}, training=False)) for view in range(20)]
    np.testing.assert_allclose(found.probabilities, np.mean(each, axis=0), atol=1e-5)
    assert found.actual.tolist() == batch["label"].numpy().tolist()
    info = json.loads(Path("model/frames/model.json").read_text())
    Path("model/frames/model.json").write_text(json.dumps({**info, "crop": None}))
    with pytest.raises(UsageError, match="num_crops 3 needs a crop"):
        evaluate(dataset, EvaluateOptions(num_crops=3))


def test_a_service_can_load(dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """test_service.py compares what it delivers; here, that it is asked."""
    monkeypatch.chdir(tmp_path)
    with Manifest(f"{dataset}/manifest.parquet") as manifest:
        save_model(manifest.info.labels, labels="single")
    with pytest.raises(UsageError, match="service 'nowhere'"):
        evaluate(dataset, EvaluateOptions(service="nowhere"))


def test_clips_without_labels_count_for_map_and_not_for_top_k() -> None:
    evaluation = Evaluation(
        class_names=["a", "b", "c"],
        clip_ids=["x", "y", "z"],
        actual=np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]], np.float32),
        probabilities=np.array([[0.9, 0.2, 0.1], [0.6, 0.7, 0.1], [0.8, 0.1, 0.2]], np.float32),
    )
    metrics = evaluation.metrics()
    assert (metrics["top1"], metrics["top5"]) == (1.0, 1.0)
    # of a: 0.9 right, 0.8 wrong, 0.6 right; of b: 0.7 right
    assert metrics["average_precision"] == {"a": round((1 + 2 / 3) / 2, 6), "b": 1.0}
    assert metrics["classes_without_clips"] == 1
    assert evaluation.confusion.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    rows = evaluation.predictions_csv().decode().splitlines()[1:]
    assert rows == ["x,a,a", "y,a,a", "y,a,b", "y,b,a", "y,b,b", "z,(none),a"]


def test_the_picture_of_many_classes_keeps_a_size_that_can_be_looked_at() -> None:
    sizes = {}
    for classes in (3, 30, 200):
        counts = np.eye(classes, dtype=np.int64)
        with Image.open(io.BytesIO(confusion_png(counts, [f"c{i}" for i in range(classes)]))) as picture:
            sizes[classes] = picture.size
    assert sizes == {3: (400, 400), 30: (1250, 1250), 200: (2000, 2000)}


def test_rows_are_shares_of_the_clips_that_have_a_class() -> None:
    counts = np.array([[2, 1], [1, 1]])
    by_clips = confusion_png(counts, ["a", "b"], clips=np.array([2, 1]))
    assert by_clips != confusion_png(counts, ["a", "b"])
    assert by_clips == confusion_png(counts, ["a", "b"], clips=np.array([2, 1]))
