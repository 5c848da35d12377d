"""Two networks, one for RGB and one for optical flow, whose class probabilities are averaged.

After Simonyan and Zisserman, Two-Stream Convolutional Networks for Action Recognition in Videos, NIPS 2014, fused late
by averaging. Here the two are trained together, on the average, rather than one after the other. The temporal network
sees each flow field by itself and pools its features over the clip, so it learns from few clips and any length;
``temporal: {stack: true}`` stacks the fields as channels, which is the paper's: give it clips of 10 steps, stride 1.
"""

from collections.abc import Mapping
from typing import Any

import keras

from reelmill.datasets.errors import UsageError
from reelmill.train.models import InputSpec, checked, frame_cnn
from reelmill.train.models.inputs import check_pictures


def build(
    inputs: Mapping[str, InputSpec],
    classes: int,
    activation: str,
    *,
    spatial: dict[str, Any] | None = None,
    temporal: dict[str, Any] | None = None,
) -> Any:
    """The model for clips of frames, uint8, and of fields, float32: both [steps, height, width, channels].

    Args:
        inputs: a column of each kind, in either order.
        classes: length of the output.
        activation: of the output.
        spatial: arguments of the network for RGB, which is a :mod:`reelmill.train.models.frame_cnn`.
        temporal: arguments of the one for flow, which is another.
    """
    check_pictures(inputs, columns=2)
    if len({spec.dtype for spec in inputs.values()}) == 1:
        raise UsageError(f"it reads one column of frames and one of flow, not {' and '.join(inputs)}")
    streams = []
    for name, spec in inputs.items():
        stream, arguments = ("spatial", spatial) if spec.dtype == "uint8" else ("temporal", temporal)
        try:
            chosen = checked(frame_cnn.build, arguments or {})
            streams.append(frame_cnn.build({name: spec}, classes, activation, **chosen))
        except ValueError as error:
            raise UsageError(f"{stream}: {error}") from error
    clips = {name: tensor for stream in streams for name, tensor in stream.input.items()}
    outputs = keras.layers.Average(dtype="float32")([stream.output for stream in streams])
    return keras.Model(clips, outputs, name="two_stream")
