"""Which streams a column has: seen in its first record, so that a column of any kind can be read."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from reelmill.datasets.errors import UsageError
from reelmill.datasets.records import keys
from reelmill.datasets.records.sequence_example import SequenceExample
from reelmill.train.loading.clip_sampling import Sampling
from reelmill.train.loading.streams.base import Pictorial, Stream
from reelmill.train.loading.streams.features import FeatureStream, MotionStream, WaveformStream
from reelmill.train.loading.streams.image_ops import Picture
from reelmill.train.loading.streams.images import FlowStream, FrameStream

RESERVED = ("timestamp", "clip_id", "label")
"""Keys of the loader's dictionaries that no column can have."""


def streams_of(column: str, first: SequenceExample, *, picture: Picture, sampling: Sampling) -> list[Stream]:
    """The streams of one column: frames, flow, motion, sound, and features of any prefix.

    Sound is called ``waveform`` and log-mel features ``log_mel``. All else has the column's name; features beside
    something else have that and their prefix. Sound is left out where ``waveform_samples`` is not set and the
    column holds something else.

    Args:
        column: its name.
        first: its first record.
        picture: what is made of pictures.
        sampling: what is taken of a clip.

    Raises:
        UsageError: there is nothing in it that can be read, or it holds sound alone and ``waveform_samples``
            is not set.
    """
    prefixes = _prefixes(first)
    found: list[Stream] = []
    if keys.IMAGE_ENCODED in first.feature_lists:
        found.append(FrameStream(column, picture))
    if keys.FLOW_ENCODED in first.feature_lists:
        found.append(FlowStream(column, picture, saturation_type=_type(first, keys.FLOW_SATURATION)))
    for prefix in prefixes:
        found.append(_features(prefix, first, column, picture))
    features = [
        p
        for p, s in zip(prefixes, found[len(found) - len(prefixes) :], strict=True)
        if isinstance(s, FeatureStream)
    ]
    sound = keys.prefixed(keys.WAVEFORM_PREFIX, keys.FEATURE_FLOATS) in first.feature_lists
    if not found and not sound:
        raise UsageError(f"column {column!r} holds no frames, flow, features or sound that the loader reads")
    if sound and sampling.waveform_samples is not None:
        found.append(_waveform(first, column, sampling.waveform_samples))
    elif not found:
        raise UsageError(
            f"column {column!r} holds sound: say how many samples a clip gets, as waveform_samples=16000"
        )
    for stream, prefix in zip([s for s in found if isinstance(s, FeatureStream)], features, strict=True):
        if prefix == keys.LOG_MEL_PREFIX:
            stream.key = "log_mel"
        elif sound or len(found) > 1:
            stream.key = f"{column}_{prefix.lower()}"
    return found


def primary_stream(streams: Sequence[Stream], columns: Sequence[str]) -> Stream:
    """The one whose steps are sampled: the first that has any. Raises UsageError where none has."""
    for stream in streams:
        if stream.time_key is not None:
            return stream
    raise UsageError(
        f"columns {list(columns)!r} have no steps to choose from: read sound together with frames, flow or features"
    )


def primary_picture(streams: Sequence[Stream]) -> Pictorial | None:
    """The one in whose pictures the window is placed: the first frames or flow, else the first motion vectors."""
    pictorial = [s for s in streams if isinstance(s, Pictorial)]
    return min(pictorial, key=lambda s: isinstance(s, MotionStream), default=None)


def check_keys(streams: Sequence[Stream]) -> None:
    """Raise UsageError where two streams would be delivered under one name."""
    taken = set(RESERVED)
    for stream in streams:
        if stream.key in taken:
            raise UsageError(
                f"two things would be called {stream.key!r} in a batch: leave out one of the columns"
            )
        taken.add(stream.key)


def _prefixes(first: SequenceExample) -> list[str]:
    """Prefixes of what :func:`reelmill.datasets.records.feature_arrays.encode_features` wrote, sorted."""
    ending = "/" + keys.FEATURE_DTYPE
    return sorted(key.removesuffix(ending) for key in first.context if key.endswith(ending))


def _features(prefix: str, first: SequenceExample, column: str, picture: Picture) -> Stream:
    def context(key: str) -> list[Any]:
        return first.context.get(keys.prefixed(prefix, key), [])

    dtype = context(keys.FEATURE_DTYPE)[0].decode()
    if prefix == keys.MOTION_PREFIX and context(keys.FEATURE_HEIGHT):
        return MotionStream(column, dtype=dtype, crop=picture.window)
    dimensions = context(keys.FEATURE_DIMENSIONS)
    return FeatureStream(column, prefix=prefix, dtype=dtype, dimensions=dimensions)


def _waveform(first: SequenceExample, column: str, samples: int) -> Stream:
    def key(name: str) -> str:
        return keys.prefixed(keys.WAVEFORM_PREFIX, name)

    channels = first.context.get(key(keys.FEATURE_NUM_CHANNELS), [1])[0]
    if channels != 1:
        raise UsageError(f"column {column!r} holds sound of {channels} channels; the loader reads one")
    timed = key(keys.FEATURE_TIMESTAMP) in first.feature_lists
    rate_type = _type(first, key(keys.FEATURE_SAMPLE_RATE))
    return WaveformStream("waveform", samples=samples, timed=timed, rate_type=rate_type)


def _type(first: SequenceExample, key: str) -> tf.DType:
    """How a number is stored: writers differ, where a number is a whole one."""
    return tf.int64 if isinstance(first.context[key][0], int) else tf.float32
