"""Measuring how fast loading is, held against datasets of known speed and content."""

import os
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.data.experimental.ops import testing
from tensorflow.python.framework import config

from reelmill.datasets.errors import UsageError
from reelmill.datasets.synthetic import Recording
from reelmill.train.benchmark import measure
from reelmill.train.benchmark.measure import COPY, NOW, Sample, Way, on_cores, ways
from reelmill.train.loading.loader import load
from reelmill.train.options import TrainOptions

OPTIONS = TrainOptions(batch_size=8, clip_frames=4, stride=1, crop=24)


@pytest.fixture(autouse=True)
def no_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "WARM_UP_S", 0.1)


def napping(milliseconds: int, seen: list[bool] | None = None) -> tf.data.Dataset:
    """Batches of 5 clips, one in so many milliseconds."""
    if seen is not None:
        seen.append(config.is_op_determinism_enabled())
    batches = tf.data.Dataset.from_tensors({"clip_id": tf.zeros([5], tf.string)}).repeat()
    return batches.apply(testing.sleep(milliseconds * 1000))


def test_clips_per_second_are_those_of_the_dataset() -> None:
    way = Way(name="a", costs="", deterministic=False, build=partial(napping, 20))
    way.turn(0.4)
    way.turn(0.4)
    assert len(way.rates) == 2
    assert 150 < way.clips_per_second <= 255
    assert way.seconds == pytest.approx(0.8, abs=0.15)
    assert way.busy_cores < 0.8


@pytest.mark.parametrize("wanted", [True, False])
def test_determinism_is_as_wanted_and_as_before(wanted: bool) -> None:
    before, seen = config.is_op_determinism_enabled(), list[bool]()
    Way(name="a", costs="", deterministic=wanted, build=partial(napping, 1, seen)).turn(0.01)
    assert seen == [wanted]
    assert config.is_op_determinism_enabled() == before


def test_fewer_cores_are_fewer_cores() -> None:
    before = os.sched_getaffinity(0)

    def threads() -> set[int]:
        return {len(os.sched_getaffinity(int(thread))) for thread in os.listdir("/proc/self/task")}

    with on_cores(1):
        assert threads() == {1}
    assert os.sched_getaffinity(0) == before


def test_every_way_loads_what_it_says(dataset: str, tmp_path: Path) -> None:
    found = {way.name: way for way in ways(dataset, OPTIONS, str(tmp_path))}
    assert next(iter(found)) == NOW
    assert {"deterministic: false", "shuffle_shards: 4", COPY, "frames.quality: 75"} < set(found)
    assert [way.name for way in found.values() if not way.deterministic] == ["deterministic: false"]
    shapes = {
        NOW: (8, 4, 24, 24, 3),
        "clip_frames: 2, stride: 2": (8, 2, 24, 24, 3),
        "frames.short_side: 24": (8, 4, 24, 24, 3),
        "dtype: float32": (8, 4, 24, 24, 3),
    }
    for name, shape in shapes.items():
        frames = next(iter(found[name].build()))["frames"]
        assert frames.shape == shape, name
        assert frames.dtype == (tf.float32 if name == "dtype: float32" else tf.uint8)
    for name in ["deterministic: false", *(f"{n} core" for n in range(2) if f"{n} core" in found)]:
        found[name].turn(0.01)
        assert found[name].clips >= 8, name


def test_replicas_get_batches_of_their_own(dataset: str, tmp_path: Path) -> None:
    options = OPTIONS.model_copy(update={"replicas": 4})
    first = ways(dataset, options, str(tmp_path))[0]
    assert next(iter(first.build()))["frames"].shape[0] == 2


def test_options_that_make_no_sense(dataset: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="crop 1000x1000 is larger than the stored frames"):
        ways(dataset, OPTIONS.model_copy(update={"crop": 1000}), str(tmp_path))
    with pytest.raises(UsageError, match="batch_size"):
        ways(dataset, OPTIONS.model_copy(update={"batch_size": 1000}), str(tmp_path))


def test_sample_is_stored_as_asked(dataset: str, recordings: list[Recording], tmp_path: Path) -> None:
    sample = Sample.of(dataset, "frames", "train")
    stored = {tuple(r.jpegs) for r in recordings if r.split == "train"}
    assert {tuple(clip) for clip in sample.clips} == stored
    assert (sample.quality, sample.short_side) == (90, 40)

    def pixels(name: str, **how: int) -> np.ndarray:
        sample.write(str(tmp_path / name), **how)
        loaded = load(str(tmp_path / name), split="train", crop=None, clip_frames=1, batch_size=1)
        return np.concatenate([batch["frames"][0] for batch in loaded])

    same, shorter, smaller = pixels("same"), pixels("q", quality=30), pixels("s", quality=95, short_side=20)
    assert same.shape == shorter.shape == (len(stored), 40, 56, 3)
    assert smaller.shape == (len(stored), 20, 28, 3)
    assert folder_size(tmp_path / "q") < folder_size(tmp_path / "same")
    assert 0.5 < np.abs(same.astype(int) - shorter).mean() < 15  # the same pictures, with more artefacts
    halved = np.stack([cv2.resize(frame, (28, 20), interpolation=cv2.INTER_AREA) for frame in same])
    assert np.abs(halved.astype(int) - smaller).mean() < 6


def folder_size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*tfrecord*"))


def test_sample_is_spread_and_small(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SAMPLE_FRAMES", 20)
    monkeypatch.setattr(measure, "CLIP_FRAMES", 5)
    sample = Sample.of(dataset, "frames", "train")
    assert [len(clip) for clip in sample.clips] == [5, 5, 5, 5]


def test_only_a_column_of_frames_is_stored_otherwise(dataset: str, tmp_path: Path) -> None:
    copied = tmp_path / "copy"
    names = [way.name for way in ways(dataset, OPTIONS.model_copy(update={"crop": None}), str(copied))]
    assert "frames.short_side: 28" in names
    assert not any(name.startswith("crop") for name in names)
