"""Measurement of the loader's throughput, on datasets of known speed and content."""

from functools import partial

import pytest
import tensorflow as tf
from tensorflow.python.data.experimental.ops import testing
from tensorflow.python.framework import config

from reelmill.datasets.errors import UsageError
from reelmill.train.benchmark import measure
from reelmill.train.benchmark.measure import CURRENT, LoaderVariant, variants
from reelmill.train.options import TrainOptions

OPTIONS = TrainOptions(batch_size=8, clip_frames=4, stride=1, crop=24)


@pytest.fixture(autouse=True)
def no_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "WARM_UP_S", 0.1)


def sleeping_batches(milliseconds: int, determinism: list[bool] | None = None) -> tf.data.Dataset:
    """Return batches of 5 clips at this interval; record whether operations are deterministic."""
    if determinism is not None:
        determinism.append(config.is_op_determinism_enabled())
    batches = tf.data.Dataset.from_tensors({"clip_id": tf.zeros([5], tf.string)}).repeat()
    return batches.apply(testing.sleep(milliseconds * 1000))


def test_clips_per_second_are_those_of_the_dataset() -> None:
    variant = LoaderVariant(name="a", cost="", deterministic=False, build=partial(sleeping_batches, 20))
    variant.run_trial(0.4)
    variant.run_trial(0.4)
    assert len(variant.rates) == 2
    assert 150 < variant.clips_per_second <= 255
    assert variant.seconds == pytest.approx(0.8, abs=0.15)
    assert variant.busy_cores < 0.8


@pytest.mark.parametrize("deterministic", [True, False])
def test_determinism_is_set_during_a_trial_and_restored(deterministic: bool) -> None:
    before, during = config.is_op_determinism_enabled(), list[bool]()
    build = partial(sleeping_batches, 1, during)
    LoaderVariant(name="a", cost="", deterministic=deterministic, build=build).run_trial(0.01)
    assert during == [deterministic]
    assert config.is_op_determinism_enabled() == before


def test_every_variant_loads_with_its_options(dataset: str) -> None:
    by_name = {variant.name: variant for variant in variants(dataset, OPTIONS)}
    fewer_frames = "clip_frames: 2, stride: 2"
    assert list(by_name) == [CURRENT, "deterministic: false", "shuffle_shards: 4", fewer_frames]
    assert [v.name for v in by_name.values() if not v.deterministic] == ["deterministic: false"]
    for name, frames in ((CURRENT, 4), ("shuffle_shards: 4", 4), (fewer_frames, 2)):
        batch = next(iter(by_name[name].build()))["frames"]
        assert (batch.shape, batch.dtype) == ((8, frames, 24, 24, 3), tf.uint8), name
    by_name["deterministic: false"].run_trial(0.01)
    assert by_name["deterministic: false"].clips >= 8


@pytest.mark.parametrize(("crop", "smaller"), [(224, ["crop: 160"]), (24, []), (None, [])])
def test_a_smaller_crop_is_measured_if_the_crop_is_large(
    monkeypatch: pytest.MonkeyPatch, crop: int | None, smaller: list[str]
) -> None:
    monkeypatch.setattr(measure, "_load", lambda *_: None)
    names = [variant.name for variant in variants("any", OPTIONS.model_copy(update={"crop": crop}))]
    assert [name for name in names if name.startswith("crop")] == smaller


def test_the_batch_is_divided_among_replicas(dataset: str) -> None:
    current = variants(dataset, OPTIONS.model_copy(update={"replicas": 4}))[0]
    assert next(iter(current.build()))["frames"].shape[0] == 2


def test_invalid_options_are_reported_before_measuring(dataset: str) -> None:
    with pytest.raises(UsageError, match="crop 1000x1000 is larger than the stored frames"):
        variants(dataset, OPTIONS.model_copy(update={"crop": 1000}))
    with pytest.raises(UsageError, match="batch_size"):
        variants(dataset, OPTIONS.model_copy(update={"batch_size": 1000}))
