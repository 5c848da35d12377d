"""How fast a dataset can be loaded on this host, as it is and otherwise: everything here is measured."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.pool import ThreadPool
from typing import Any

import cv2
import numpy as np
import tensorflow as tf
from tensorflow.python.framework import config  # only here can determinism be switched off again

from reelmill.datasets import storage
from reelmill.datasets.column import Column
from reelmill.datasets.errors import DatasetError
from reelmill.datasets.records import keys
from reelmill.datasets.records.sequence_example import SequenceExample
from reelmill.datasets.synthetic import Recording, encode, write_dataset
from reelmill.train.benchmark.report import Measured
from reelmill.train.loading.loader import load
from reelmill.train.loading.record_reader import locate, reading
from reelmill.train.options import TrainOptions

WARM_UP_S = 1.0
"""Before a turn: tuning, and draining what was loaded ahead meanwhile."""
SAMPLE_FRAMES = 1_200
"""Frames of the sample that is stored otherwise: encoding them takes seconds."""
CLIP_FRAMES = 300
"""Frames of a clip of the sample at most."""
NOW, COPY = "as it is", "sample on local disk"

Build = Callable[[], tf.data.Dataset]


@dataclass(kw_only=True)
class Way(Measured):
    """A way of loading that can be measured."""

    build: Build
    """Makes the batches."""
    deterministic: bool
    """Whether TensorFlow's operations are."""
    within: Callable[[], AbstractContextManager[None]] = field(default=nullcontext)
    """Entered while it is measured."""

    def turn(self, seconds: float) -> None:
        """Measure for so long, and at least one batch.

        Raises:
            DatasetError: the dataset cannot be read.
        """
        with self.within(), _determinism(self.deterministic), reading():
            iterator = iter(self.build())
            begun = time.perf_counter()
            next(iterator)
            while time.perf_counter() - begun < WARM_UP_S:
                next(iterator)
            begun, used, clips = time.perf_counter(), time.process_time(), 0
            while not clips or time.perf_counter() - begun < seconds:
                clips += len(next(iterator)["clip_id"])
            spent = time.perf_counter() - begun
        self.add(clips=clips, seconds=spent, processor_seconds=time.process_time() - used)


@contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    before = config.is_op_determinism_enabled()
    (config.enable_op_determinism if wanted else config.disable_op_determinism)()
    try:
        yield
    finally:
        (config.enable_op_determinism if before else config.disable_op_determinism)()


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Keep all threads of this process on so many of its cores, and those that are started inside."""
    before = os.sched_getaffinity(0)
    _keep_on(set(sorted(before)[:count]))
    try:
        yield
    finally:
        _keep_on(before)


def _keep_on(cores: set[int]) -> None:
    for thread in os.listdir("/proc/self/task"):
        try:
            os.sched_setaffinity(int(thread), cores)
        except ProcessLookupError:  # it has ended meanwhile
            continue


def fewer_cores(cores: int) -> list[int]:
    """Numbers of cores to measure besides all of them.

    >>> fewer_cores(6), fewer_cores(1)
    ([1, 2, 4], [])
    """
    return [1 << power for power in range(cores.bit_length()) if 1 << power < cores]


def ways(dataset: str, options: TrainOptions, folder: str) -> list[Way]:
    """All that is to be measured, in the order of what it would cost; the first is how it is now.

    Args:
        dataset: path or URL of a dataset.
        options: of a run; what concerns loading is used.
        folder: a local one; a sample of the clips is stored there in several ways.

    Raises:
        UsageError: an option makes no sense for this dataset, or the service does not answer.
        DatasetError: something on disk is not what it should be.
    """
    now = _loading(dataset, options)
    now()  # wrong options show before the sample is made

    def way(name: str, costs: str, build: Build, **more: Any) -> Way:
        usual = {"reference": NOW, "deterministic": options.deterministic}
        return Way(name=name, costs=costs, build=build, **{**usual, **more})

    found = [way(NOW, "", now, reference=None, knob=False)]
    if options.deterministic:
        found.append(
            way("deterministic: false", "no two runs agree to the last bit", now, deterministic=False)
        )
    if options.shuffle_shards is None:
        found.append(
            way(
                "shuffle_shards: 4",
                "neighbours in a batch come from few shards",
                _loading(dataset, options, shuffle_shards=4),
            )
        )
    found += _stored_otherwise(dataset, options, folder, way)
    if options.crop is not None and options.crop >= 64:
        crop = round(options.crop * 0.7 / 32) * 32
        found.append(
            way(f"crop: {crop}", "half of the pixels are seen", _loading(dataset, options, crop=crop))
        )
    if options.clip_frames > 1:
        frames, stride = options.clip_frames // 2, options.stride * 2
        fewer = _loading(dataset, options, clip_frames=frames, stride=stride)
        found.append(
            way(f"clip_frames: {frames}, stride: {stride}", "half of the frames, of the same time", fewer)
        )
    for count in fewer_cores(len(os.sched_getaffinity(0)) if options.service is None else 1):
        name = f"{count} core{'s' if count > 1 else ''}"
        build = _threads(now, count)
        found.append(way(name, "", build, cores=count, within=partial(on_cores, count), knob=False))
    floats = _loading(dataset, options, dtype="float32")
    found.append(way("dtype: float32", "pixels leave the loader as floats", floats, knob=False))
    return found


def _loading(dataset: str, options: TrainOptions, **changes: Any) -> Build:
    """Loads as a run of these options does, but for the changes."""
    replicas = options.replicas or 1
    context = tf.distribute.InputContext(num_replicas_in_sync=replicas)
    arguments = {
        "split": options.split,
        "columns": options.columns,
        "clip_frames": options.clip_frames,
        "stride": options.stride,
        "batch_size": options.batch_size,
        "crop": options.crop,
        "flip": options.flip,
        "shuffle_shards": options.shuffle_shards,
        "service": options.service,
        "memory_mib": options.memory_mib,
    }
    fixed = {"training": True, "seed": options.seed, "labels": "none", "input_context": context}
    return partial(load, dataset, **{**arguments, **fixed, **changes})


def _threads(build: Build, count: int) -> Build:
    """The same, with so many threads to load with, as tf.data would have on a host of so many cores."""

    def limited() -> tf.data.Dataset:
        choices = tf.data.Options()
        choices.threading.private_threadpool_size = count
        choices.autotune.cpu_budget = count
        return build().with_options(choices)

    return limited


def _stored_otherwise(dataset: str, options: TrainOptions, folder: str, way: Callable[..., Way]) -> list[Way]:
    """A sample of the frames on local disk: as they are, with shorter JPEGs, and smaller."""
    if len(options.columns) > 1 or Column(dataset, options.columns[0]).description.kind != "frames":
        return []
    sample = Sample.of(dataset, options.columns[0], options.split)
    changes: dict[str, Any] = {"columns": ["frames"], "split": "train", "shuffle_shards": None}
    changes |= {
        "service": None,
        "batch_size": min(options.batch_size, len(sample.clips)),
        "input_context": None,
    }

    def stored(name: str, costs: str, place: str, **more: Any) -> Way:
        return way(name, costs, _loading(storage.join(folder, place), options, **changes), **more)

    sample.write(storage.join(folder, "same"))
    found = [stored(COPY, "disk space", "same")]
    quality = 75 if sample.quality > 80 else 50
    if quality < sample.quality:
        sample.write(storage.join(folder, "quality"), quality=quality)
        costs = "frames built anew; more artefacts"
        found.append(stored(f"frames.quality: {quality}", costs, "quality", reference=COPY))
    side = options.crop or round(sample.short_side * 0.7)
    if side < sample.short_side:
        sample.write(storage.join(folder, "side"), quality=sample.quality, short_side=side)
        costs = "frames built anew; the crop has less room"
        found.append(stored(f"frames.short_side: {side}", costs, "side", reference=COPY))
    return found


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Some clips of a column of frames, spread over a split."""

    clips: Sequence[Sequence[bytes]]
    """JPEGs of each clip."""
    quality: int
    """That they are stored with, 1 to 100."""
    short_side: int
    """Of the smallest, in pixels."""

    @classmethod
    def of(cls, dataset: str, column: str, split: str) -> "Sample":
        """Read clips at even distances. Raises DatasetError."""
        records = locate(dataset, column, split=split)
        parameters = Column(dataset, column).description.parameters
        clips: list[list[bytes]] = []
        for row in _spread(len(records)):
            clips.append(_jpegs(records.record(row)))
            if sum(map(len, clips)) >= SAMPLE_FRAMES:
                break
        sides = [min(_pixels(jpegs[0]).shape[:2]) for jpegs in clips]
        return cls(clips=clips, quality=int(parameters.get("quality", 90)), short_side=min(sides))

    def write(self, path: str, *, quality: int | None = None, short_side: int | None = None) -> None:
        """Write a dataset of these clips.

        Args:
            path: its folder.
            quality: of the JPEGs; None: they stay as they are.
            short_side: in pixels, of frames that are larger; None: they stay as large as they are.
        """
        with ThreadPool(len(os.sched_getaffinity(0))) as pool:
            recordings = []
            for number, clip in enumerate(self.clips):
                jpegs = list(clip)
                if quality is not None:
                    jpegs = pool.map(partial(_encoded, quality=quality, short_side=short_side), clip)
                height, width = _pixels(jpegs[0]).shape[:2]
                recordings.append(
                    Recording(
                        clip_id=f"clip-{number:04d}",
                        split="train",
                        labels=["a"],
                        jpegs=jpegs,
                        height=height,
                        width=width,
                    )
                )
        write_dataset(path, recordings, labels=["a"])


def _spread(rows: int) -> list[int]:
    """All rows in an order whose beginning is spread over them: by their numbers' golden-ratio remainders."""
    return [int(row) for row in np.argsort((np.arange(rows) * 0.6180339887498949) % 1.0, kind="stable")]


def _jpegs(record: SequenceExample) -> list[bytes]:
    return [step[0] for step in record.feature_lists[keys.IMAGE_ENCODED][:CLIP_FRAMES]]


def _pixels(jpeg: bytes) -> Any:
    """Height, width and channels B, G, R."""
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise DatasetError("a stored frame is no JPEG: `reelmill verify` finds which")
    return pixels


def _encoded(jpeg: bytes, *, quality: int, short_side: int | None) -> bytes:
    pixels = _pixels(jpeg)
    height, width = pixels.shape[:2]
    if short_side is not None and short_side < min(height, width):
        scale = short_side / min(height, width)
        size = (max(short_side, round(width * scale)), max(short_side, round(height * scale)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return encode(np.ascontiguousarray(pixels[..., ::-1]), quality=quality)
