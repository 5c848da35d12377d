"""Frame-level records of YouTube-8M: a SequenceExample per video, with features quantised to bytes.

Context: ``id`` (bytes) and ``labels`` (int64, any number). Feature lists: ``rgb`` and, for videos with sound,
``audio``, with one string of uint8 per step. Sources, in github.com/google/youtube-8m:
``YT8MFrameFeatureReader`` of ``readers.py``, ``Dequantize`` of ``utils.py`` and ``quantize`` of
``feature_extractor/extract_tfrecords_main.py``.
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
"""File with the columns ``label_id,label_name``, like ``label_names_2018.csv`` of YouTube-8M."""
_IDS = ("id", "video_id")
"""Keys of the id: the current one, and that of the release of 2016."""
_SPLITS = {"val": "validate", "valid": "validate", "validation": "validate"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """Content of one record."""

    video_id: str
    labels: Sequence[int] = ()
    """Indices of the classes."""
    features: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    """Quantised features [steps, d] uint8 by the name of the list."""

    def floats(self, name: str = RGB, *, minimum: float = -2.0, maximum: float = 2.0) -> NDArray[np.float32]:
        """Return the features [steps, d] as YouTube-8M's reader dequantises them. Raise KeyError without this list."""
        return dequantise(self.features[name], minimum=minimum, maximum=maximum)


def extractor_quantise(
    values: NDArray[np.floating[Any]], *, minimum: float = -2.0, maximum: float = 2.0
) -> NDArray[np.uint8]:
    """Quantise values to uint8 like YouTube-8M's feature extractor (``quantize``, with Python 3).

    This is ``round((clip(x) - min) * 255 / (max - min))`` in float32, with halves rounded to even. ``Dequantize`` adds
    1/512 of the range, so dequantised values are half a step too high on average.
    :func:`reelmill.datasets.records.feature_arrays.quantise` has no such bias. Both invert ``Dequantize``.

    Args:
        values: finite floats of any shape, converted to float32.
        minimum: this value and lower ones become 0.
        maximum: this value and higher ones become 255.

    Raises:
        ValueError: a value is not finite.

    >>> extractor_quantise(np.array([-9.0, -2.0, 0.0, 0.01, 2.0, 9.0])).tolist()
    [0, 0, 128, 128, 255, 255]
    """
    if not np.isfinite(values).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(values)):,} values are not finite")
    clipped = np.clip(values.astype(np.float32), np.float32(minimum), np.float32(maximum))
    steps = (clipped - np.float32(minimum)) * np.float32(255.0 / (maximum - minimum))
    stored: NDArray[np.uint8] = np.rint(steps).clip(0, 255).astype(np.uint8)
    return stored


def serialize_video(video: Video) -> bytes:
    """Serialize a record. Labels are in ascending order, as the feature extractor writes them."""
    for name, values in video.features.items():
        assert values.dtype == np.uint8, name
        assert values.ndim == 2, name
    return serialize(
        {"id": video.video_id, "labels": sorted(video.labels)},
        {name: [step.tobytes() for step in values] for name, values in video.features.items()},
    )


def parse_video(record: bytes) -> Video:
    """Parse a record.

    Raises:
        DatasetError: it is not a record of YouTube-8M, or steps of a feature list differ in length.
    """
    parsed = parse(record)
    ids = [parsed.context[key] for key in _IDS if parsed.context.get(key)]
    if not ids or not isinstance(ids[0][0], bytes):
        raise DatasetError(f"not a YouTube-8M record: it has no {_IDS[0]!r}")
    video_id = ids[0][0].decode()
    features = {}
    for name, steps in parsed.feature_lists.items():
        if any(len(step) != 1 or not isinstance(step[0], bytes) for step in steps):
            raise DatasetError(f"video {video_id!r}: {name!r} is not one string of bytes per step")
        lengths = sorted({len(step[0]) for step in steps})
        if len(lengths) > 1:
            raise DatasetError(
                f"video {video_id!r}: steps of {name!r} have {lengths[0]} to {lengths[-1]} bytes"
            )
        joined = np.frombuffer(b"".join(step[0] for step in steps), np.uint8)
        features[name] = joined.reshape(len(steps), *(lengths or [0]))
    return Video(video_id=video_id, labels=parsed.context.get("labels", []), features=features)


def read_videos(path: str) -> Iterator[Video]:
    """Yield the videos of a TFRecord file.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: the file is damaged, or has other records.
    """
    with storage.open_read(path) as file:
        try:
            for _, record in read_records(file):
                yield parse_video(record)
        except CorruptRecordError as error:
            raise CorruptRecordError(f"{path}: {error}") from None


def file_name(split: str, number: int) -> str:
    """Return the name of a file, like ``{train,validate,test}XXXX.tfrecord`` of YouTube-8M.

    >>> file_name("train", 12), file_name("val", 0)
    ('train0012.tfrecord', 'validate0000.tfrecord')
    """
    return f"{_SPLITS.get(split, split)}{number:04d}.tfrecord"
