"""A small CNN on each picture, its features averaged over time; one tower for each column.

On frames it knows what is in the picture and nothing of their order: the baseline that every model of motion
has to beat. After the single-frame model of Karpathy et al., Large-scale Video Classification with Convolutional
Neural Networks, CVPR 2014; convolutions with batch normalisation instead of the original's layers. On optical
flow, or on both, it sees motion: the two streams of Simonyan and Zisserman, Two-Stream Convolutional Networks for
Action Recognition in Videos, NIPS 2014, joined before the last layer.
"""

from collections.abc import Mapping
from typing import Any

import keras

from reelmill.train.models import InputSpec

WIDTHS = (16, 32, 64, 128)


def build(inputs: Mapping[str, InputSpec], classes: int, activation: str) -> Any:
    """The model for clips of [steps, height, width, channels]."""
    clips = {name: keras.Input(spec.shape, dtype=spec.dtype, name=name) for name, spec in inputs.items()}
    towers = [_tower(clips[name], spec) for name, spec in inputs.items()]
    x = towers[0] if len(towers) == 1 else keras.ops.concatenate(towers, axis=-1)
    return keras.Model(
        clips, keras.layers.Dense(classes, activation=activation, dtype="float32")(x), name="frame_cnn"
    )


def _tower(clips: Any, spec: InputSpec) -> Any:
    steps, height, width, channels = spec.shape
    x = keras.ops.reshape(clips, (-1, height, width, channels))
    if spec.dtype == "uint8":
        x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(x)
    else:  # pixels of motion: how large they are hangs on the collection
        x = keras.layers.BatchNormalization(momentum=0.8)(x)
    for filters in WIDTHS:
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization(momentum=0.8)(x)
        x = keras.layers.ReLU()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.ops.mean(keras.ops.reshape(x, (-1, steps, WIDTHS[-1])), axis=1)
