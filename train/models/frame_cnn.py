"""A CNN on each picture, its features pooled over time.

On frames it knows what is in the picture and nothing of their order: the baseline that every model of motion
has to beat. After the single-frame model of Karpathy et al., Large-scale Video Classification with Convolutional
Neural Networks, CVPR 2014; convolutions with batch normalisation instead of the original's layers. On optical flow it
sees motion: the temporal network of Simonyan and Zisserman, Two-Stream Convolutional Networks for Action Recognition
in Videos, NIPS 2014. Maximum and minimum side by side are the pooling of Chéron et al., P-CNN: Pose-based CNN Features
for Action Recognition, ICCV 2015.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import keras
from pydantic import Field

from reelmill.datasets.errors import UsageError
from reelmill.train.models import InputSpec
from reelmill.train.models.backbone import backbone_features
from reelmill.train.models.inputs import check_pictures, tensors

WIDTHS = (16, 32, 64, 128)
"""Filters of the small CNN's layers."""


def build(
    inputs: Mapping[str, InputSpec],
    classes: int,
    activation: str,
    *,
    pooling: Literal["mean", "max", "max_min"] = "mean",
    stack: bool = False,
    backbone: str | None = None,
    weights: str | None = None,
    trainable: bool = True,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
) -> Any:
    """The model for clips of [steps, height, width, channels]: pictures, uint8 RGB, or fields, float32.

    Args:
        inputs: one column.
        classes: length of the output.
        activation: of the output.
        pooling: of the steps' features: their mean, their maximum, or the maxima and then the minima.
        stack: lay all steps on each other as channels x0, y0, x1, y1 ... of one picture, as Simonyan and Zisserman do
            with flow; False: each step is a picture of its own.
        backbone: a network of keras.applications by name; None: a small CNN.
        weights: of the backbone: ``imagenet``, ``random``, or path or URL of a weights file of the network without
            its classifier; None: ``imagenet`` for pictures, ``random`` for fields and stacks.
        trainable: False leaves the backbone as it is, and trains the last layer only.
        dropout: share of the pooled features that training leaves out.
    """
    check_pictures(inputs, columns=1)
    if backbone is None and (weights is not None or not trainable):
        raise UsageError("weights and trainable are those of a backbone: name one, as backbone: MobileNetV2")
    ((name, spec),) = inputs.items()
    clips = tensors(inputs)
    pictures = _stacked(clips[name]) if stack else clips[name]
    _, steps, *picture = pictures.shape
    x = keras.ops.reshape(pictures, (-1, *picture))
    if backbone is None:
        x = _small(x, rgb=spec.dtype == "uint8")
    else:
        x = backbone_features(x, backbone, weights=weights, trainable=trainable, name=f"{name}_backbone")
    x = _pooled(keras.ops.reshape(x, (-1, steps, x.shape[-1])), pooling)
    if dropout:
        x = keras.layers.Dropout(dropout)(x)
    outputs = keras.layers.Dense(classes, activation=activation, dtype="float32")(x)
    return keras.Model(clips, outputs, name="frame_cnn")


def _stacked(clips: Any) -> Any:
    """[b, t, h, w, c] as [b, 1, h, w, t * c]."""
    _, steps, height, width, channels = clips.shape
    return keras.ops.reshape(
        keras.ops.transpose(clips, (0, 2, 3, 1, 4)), (-1, 1, height, width, steps * channels)
    )


def _small(x: Any, *, rgb: bool) -> Any:
    # pixels of motion: how large they are hangs on the collection
    to_one = (
        keras.layers.Rescaling(1 / 127.5, offset=-1.0)
        if rgb
        else keras.layers.BatchNormalization(momentum=0.8)
    )
    x = to_one(x)
    for filters in WIDTHS:
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization(momentum=0.8)(x)
        x = keras.layers.ReLU()(x)
    return keras.layers.GlobalAveragePooling2D()(x)


def _pooled(x: Any, pooling: str) -> Any:
    if pooling == "mean":
        return keras.ops.mean(x, axis=1)
    if pooling == "max":
        return keras.ops.max(x, axis=1)
    return keras.ops.concatenate([keras.ops.max(x, axis=1), keras.ops.min(x, axis=1)], axis=-1)
