"""LSTM, GRU and bidirectional LSTM over precomputed features.

After Ng et al., Beyond Short Snippets: Deep Networks for Video Classification, CVPR 2015, which puts LSTM layers on
CNN features of frames and of flow, and Donahue et al., Long-term Recurrent Convolutional Networks for Visual
Recognition and Description, CVPR 2015, which averages over the steps; both use RGB and flow together. GRU is Cho et
al., EMNLP 2014; the bidirectional network reads a clip from both ends, as in Graves and Schmidhuber, 2005.
"""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal

import keras
from pydantic import Field

from reelmill.train.models import InputSpec
from reelmill.train.models.inputs import check_features, tensors, unit

Cell = Literal["lstm", "gru", "bilstm"]


def _build(
    cell: Cell,
    inputs: Mapping[str, InputSpec],
    classes: int,
    activation: str,
    *,
    units: Annotated[int, Field(ge=1)] = 128,
    layers: Annotated[int, Field(ge=1)] = 1,
    output: Literal["mean", "last"] = "mean",
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
) -> Any:
    """The model for clips of [steps, ...] float32; what follows the steps is taken as one vector.

    Args:
        cell: which network; ``lstm``, ``gru`` and ``bilstm`` of this file are the three.
        inputs: any number of columns with equally many steps; of each step their vectors lie side by side.
        classes: length of the output.
        activation: of the output.
        units: of each layer, and in each direction.
        layers: one upon the other.
        output: ``mean`` of all steps' outputs, or the ``last`` step's (of both directions the one that has seen all).
        dropout: share of the values that training leaves out before the output layer.
    """
    check_features(inputs)
    clips = tensors(inputs)
    rows = [unit(keras.layers.Reshape((clip.shape[1], -1))(clip)) for clip in clips.values()]
    x = rows[0] if len(rows) == 1 else keras.layers.Concatenate()(rows)
    x = keras.layers.BatchNormalization(momentum=0.8)(x)
    for number in range(1, layers + 1):
        x = _layer(cell, units, sequences=number < layers or output == "mean")(x)
    if output == "mean":
        x = keras.layers.GlobalAveragePooling1D()(x)
    if dropout:
        x = keras.layers.Dropout(dropout)(x)
    outputs = keras.layers.Dense(classes, activation=activation, dtype="float32")(x)
    return keras.Model(clips, outputs, name=cell)


def _layer(cell: Cell, units: int, *, sequences: bool) -> Any:
    if cell == "gru":
        return keras.layers.GRU(units, return_sequences=sequences)
    layer = keras.layers.LSTM(units, return_sequences=sequences)
    return keras.layers.Bidirectional(layer) if cell == "bilstm" else layer


lstm = partial(_build, "lstm")
gru = partial(_build, "gru")
bilstm = partial(_build, "bilstm")
