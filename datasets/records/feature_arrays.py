"""Features of a clip in a record: arrays of one shape, one for each step, under a prefix of their own.

float32 lies in a list of floats, as MediaSequence has it. float16 and quantised uint8 lie in bytes
(``PREFIX/feature/bytes``), a half and a quarter as long.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from reelmill.datasets.errors import DatasetError
from reelmill.datasets.records import keys
from reelmill.datasets.records.sequence_example import SequenceExample, Value

StoredDtype = Literal["float32", "float16", "uint8"]
"""How a value is stored."""


def quantise(
    values: NDArray[np.floating[Any]], *, minimum: float = -2.0, maximum: float = 2.0
) -> NDArray[np.uint8]:
    """Values as uint8, so that :func:`dequantise` gives back what is nearest to them.

    The inverse of YouTube-8M's ``Dequantize``: values outside of what it can give back are clamped. Its feature
    extractor quantises otherwise, half a step lower: :func:`reelmill.datasets.records.youtube8m.extractor_quantise`.

    Args:
        values: finite floats of any shape.
        minimum: the value that quantised 0 stands for, but for half a step.
        maximum: the value that quantised 255 stands for, but for half a step; above ``minimum``.

    >>> quantise(np.array([-9.0, -2.0, 0.0, 2.0, 9.0])).tolist()
    [0, 0, 127, 255, 255]
    """
    span = np.float64(maximum) - np.float64(minimum)
    steps = (values.astype(np.float64) - span / 512 - minimum) * 255 / span
    return np.rint(steps).clip(0, 255).astype(np.uint8)


def dequantise(
    stored: NDArray[np.uint8], *, minimum: float = -2.0, maximum: float = 2.0
) -> NDArray[np.float32]:
    """``x * (max - min) / 255 + (max - min) / 512 + min``, in float32.

    Source: ``Dequantize`` in YouTube-8M's ``utils.py``, where the bias is 1/512 of the range, not 1/510.

    >>> dequantise(np.array([0, 255], np.uint8)).tolist()
    [-1.9921875, 2.0078125]
    """
    span = maximum - minimum
    scalar, bias = np.float32(span / 255.0), np.float32(span / 512.0 + minimum)
    return stored.astype(np.float32) * scalar + bias


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFeatures:
    """Features of one clip."""

    values: NDArray[Any]
    """[steps, ...] float32, float16, or uint8 as :func:`quantise` makes it."""
    timestamps_us: Sequence[int]
    """Presentation time of each step in microseconds; strictly increasing."""
    rate: float
    """Steps per second."""
    minimum: float = -2.0
    """What quantised 0 stands for; without meaning for floats."""
    maximum: float = 2.0
    """What quantised 255 stands for; without meaning for floats."""

    def floats(self) -> NDArray[np.float32]:
        """The values as float32, dequantised where they are uint8."""
        if self.values.dtype == np.uint8:
            return dequantise(self.values, minimum=self.minimum, maximum=self.maximum)
        return self.values.astype(np.float32)


Context = dict[str, Value | Sequence[Value]]
FeatureLists = dict[str, Sequence[Value | Sequence[Value]]]


def encode_features(vectors: ClipFeatures, *, prefix: str) -> tuple[Context, FeatureLists]:
    """Context and feature lists: the arguments of :func:`reelmill.datasets.records.sequence_example.serialize`."""
    values = vectors.values
    dtype = str(values.dtype)
    assert dtype in get_args(StoredDtype), dtype
    assert len(values) == len(vectors.timestamps_us)
    rows = values.reshape(len(values), math.prod(values.shape[1:]))
    context: Context = {
        keys.FEATURE_DIMENSIONS: list(values.shape[1:]),
        keys.FEATURE_RATE: float(vectors.rate),
        keys.FEATURE_DTYPE: dtype,
    }
    lists: FeatureLists = {keys.FEATURE_TIMESTAMP: [int(time) for time in vectors.timestamps_us]}
    if dtype == "float32":
        lists[keys.FEATURE_FLOATS] = rows.tolist()
    else:
        lists[keys.FEATURE_BYTES] = [row.astype(values.dtype.newbyteorder("<")).tobytes() for row in rows]
    if dtype == "uint8":
        context |= {
            keys.FEATURE_MINIMUM: float(vectors.minimum),
            keys.FEATURE_MAXIMUM: float(vectors.maximum),
        }
    return (
        {keys.prefixed(prefix, key): value for key, value in context.items()},
        {keys.prefixed(prefix, key): value for key, value in lists.items()},
    )


def decode_features(record: SequenceExample, *, prefix: str) -> ClipFeatures:
    """The features of a parsed record. Raises DatasetError where it has none of that prefix, or not whole ones."""

    def context(key: str) -> list[Any]:
        return record.context.get(keys.prefixed(prefix, key), [])

    def steps(key: str) -> list[list[Any]]:
        name = keys.prefixed(prefix, key)
        if name not in record.feature_lists:
            raise DatasetError(f"a record without the list {name!r}")
        return record.feature_lists[name]

    if not context(keys.FEATURE_DTYPE):
        raise DatasetError(f"a record without features of the prefix {prefix!r}")
    dtype = context(keys.FEATURE_DTYPE)[0].decode()
    if dtype not in get_args(StoredDtype):
        raise DatasetError(
            f"features {prefix!r} of the type {dtype!r}: expected {', '.join(get_args(StoredDtype))}"
        )
    dimensions = context(keys.FEATURE_DIMENSIONS)
    times = steps(keys.FEATURE_TIMESTAMP)
    shape = (len(times), *dimensions)
    stored = steps(keys.FEATURE_FLOATS if dtype == "float32" else keys.FEATURE_BYTES)
    try:
        if dtype == "float32":
            values = np.array(stored, np.float32).reshape(shape)
        else:
            joined = b"".join(step[0] for step in stored)
            values = np.frombuffer(joined, np.dtype(dtype).newbyteorder("<")).reshape(shape)
    except ValueError:
        raise DatasetError(
            f"features {prefix!r} are not of the shape {list(shape)} that the record tells"
        ) from None
    bounds = {}
    if dtype == "uint8":
        bounds = {"minimum": context(keys.FEATURE_MINIMUM)[0], "maximum": context(keys.FEATURE_MAXIMUM)[0]}
    return ClipFeatures(
        values=values, timestamps_us=[step[0] for step in times], rate=context(keys.FEATURE_RATE)[0], **bounds
    )
