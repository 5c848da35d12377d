"""Mean and maximum of features over time, L2-normalised for each column, and one hidden layer.

After the baselines of Abu-El-Haija et al., YouTube-8M: A Large-Scale Video Classification Benchmark, 2016, which
pool statistics of frame-level features over the video and normalise them before a small classifier.
"""

import math
from collections.abc import Mapping
from typing import Any

import keras

from reelmill.train.models import InputSpec

HIDDEN = 128


def build(inputs: Mapping[str, InputSpec], classes: int, activation: str) -> Any:
    """The model for clips of [steps, ...]; what follows the steps is taken as one vector."""
    clips = {name: keras.Input(spec.shape, dtype=spec.dtype, name=name) for name, spec in inputs.items()}
    pooled = [_pooled(clips[name], steps=spec.shape[0]) for name, spec in inputs.items()]
    x = pooled[0] if len(pooled) == 1 else keras.layers.Concatenate()(pooled)
    x = keras.layers.BatchNormalization(momentum=0.8)(x)
    x = keras.layers.Dense(HIDDEN, activation="relu")(x)
    return keras.Model(
        clips, keras.layers.Dense(classes, activation=activation, dtype="float32")(x), name="feature_mlp"
    )


def _pooled(rows: Any, *, steps: int) -> Any:
    rows = keras.layers.Reshape((steps, -1))(rows)
    statistics = [keras.layers.GlobalAveragePooling1D()(rows), keras.layers.GlobalMaxPooling1D()(rows)]
    x = keras.layers.Concatenate()(statistics)
    # to a length at which each value is about 1: networks differ by orders of magnitude in what they give
    return keras.layers.Rescaling(math.sqrt(x.shape[-1]))(keras.layers.UnitNormalization()(x))
