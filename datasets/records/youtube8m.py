"""YouTube-8M's frame-level records: a SequenceExample for each video, its features quantised to bytes.

Context ``id`` (bytes) and ``labels`` (int64, none or many); feature lists ``rgb`` and, if there is sound, ``audio``,
with one string of uint8 for each step. Sources, all in github.com/google/youtube-8m: ``YT8MFrameFeatureReader`` of
``readers.py``, ``Dequantize`` of ``utils.py`` and ``quantize`` of ``feature_extractor/extract_tfrecords_main.py``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelmill.datasets import storage
from reelmill.datasets.errors import CorruptRecordError, DatasetError
from reelmill.datasets.records.feature_arrays import dequantise
from reelmill.datasets.records.sequence_example import parse, serialize
from reelmill.datasets.records.tfrecord import read_records

RGB, AUDIO = "rgb", "audio"
"""Names of the feature lists."""
LABEL_NAMES = "label_names.csv"
"""File with the columns ``label_id,label_name``, as the data set's ``label_names_2018.csv``."""
_IDS = ("id", "video_id")
"""Keys of the id: today's and that of the release of 2016."""
_SPLITS = {"val": "validate", "valid": "validate", "validation": "validate"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """One record."""

    video_id: str
    labels: Sequence[int] = ()
    """Numbers of its classes."""
    features: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    """By the list's name, [steps, d] uint8 as :func:`extractor_quantise` makes it."""

    def floats(self, name: str = RGB, *, minimum: float = -2.0, maximum: float = 2.0) -> NDArray[np.float32]:
        """Features as a reader of YouTube-8M sees them, [steps, d]. Raises KeyError without any of that name."""
        return dequantise(self.features[name], minimum=minimum, maximum=maximum)


def extractor_quantise(
    values: NDArray[np.floating[Any]], *, minimum: float = -2.0, maximum: float = 2.0
) -> NDArray[np.uint8]:
    """Values as uint8, as YouTube-8M's feature extractor quantises them (``quantize``, under Python 3).

    ``round((clip(x) - min) * 255 / (max - min))`` in float32, halves to the even number. ``Dequantize`` adds 1/512
    of the range, so what comes back is too high by half a step on average;
    :func:`reelmill.datasets.records.feature_arrays.quantise` has no such bias. Both turn what
    ``Dequantize`` returns into the bytes that it came from.

    Args:
        values: finite floats of any shape; taken as float32.
        minimum: becomes 0, as do values below it.
        maximum: becomes 255, as do values above it.

    Raises:
        ValueError: a value is not finite.

    >>> extractor_quantise(np.array([-9.0, -2.0, 0.0, 0.01, 2.0, 9.0])).tolist()
    [0, 0, 128, 128, 255, 255]
    """
    if not np.isfinite(values).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(values)):,} values that are not finite")
    clipped = np.clip(values.astype(np.float32), np.float32(minimum), np.float32(maximum))
    steps = (clipped - np.float32(minimum)) * np.float32(255.0 / (maximum - minimum))
    stored: NDArray[np.uint8] = np.rint(steps).clip(0, 255).astype(np.uint8)
    return stored


def serialize_video(video: Video) -> bytes:
    """The serialized SequenceExample; labels in ascending order, as the feature extractor writes them."""
    for name, values in video.features.items():
        assert values.dtype == np.uint8, name
        assert values.ndim == 2, name
    return serialize(
        {"id": video.video_id, "labels": sorted(video.labels)},
        {name: [step.tobytes() for step in values] for name, values in video.features.items()},
    )


def parse_video(record: bytes) -> Video:
    """One record, with every feature list whose steps are strings of one length.

    Raises:
        DatasetError: it is no such record.
    """
    parsed = parse(record)
    ids = [parsed.context[key] for key in _IDS if parsed.context.get(key)]
    if not ids or not isinstance(ids[0][0], bytes):
        raise DatasetError(f"not a YouTube-8M record: it has no {_IDS[0]!r}")
    video_id = ids[0][0].decode()
    features = {}
    for name, steps in parsed.feature_lists.items():
        if any(len(step) != 1 or not isinstance(step[0], bytes) for step in steps):
            raise DatasetError(f"video {video_id!r}: {name!r} is not one string of bytes for each step")
        lengths = sorted({len(step[0]) for step in steps})
        if len(lengths) > 1:
            raise DatasetError(
                f"video {video_id!r}: steps of {name!r} have {lengths[0]} to {lengths[-1]} bytes"
            )
        joined = np.frombuffer(b"".join(step[0] for step in steps), np.uint8)
        features[name] = joined.reshape(len(steps), *(lengths or [0]))
    return Video(video_id=video_id, labels=parsed.context.get("labels", []), features=features)


def read_videos(path: str) -> Iterator[Video]:
    """The videos of one TFRecord file, which may be a URL.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: it is damaged, or holds other records.
    """
    with storage.open_read(path) as file:
        try:
            for _, record in read_records(file):
                yield parse_video(record)
        except CorruptRecordError as error:
            raise CorruptRecordError(f"{path}: {error}") from None


def file_name(split: str, number: int) -> str:
    """Name of a file, as the data set's ``{train,validate,test}XXXX.tfrecord``.

    >>> file_name("train", 12), file_name("val", 0)
    ('train0012.tfrecord', 'validate0000.tfrecord')
    """
    return f"{_SPLITS.get(split, split)}{number:04d}.tfrecord"
