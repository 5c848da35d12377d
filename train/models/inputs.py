"""Inputs of the models in this folder: checks, which give shorter messages than Keras, and normalisation."""

from collections.abc import Mapping
from typing import Any

import keras

from reelmill.datasets.errors import UsageError
from reelmill.train.models import InputSpec


def keras_inputs(inputs: Mapping[str, InputSpec]) -> dict[str, Any]:
    """Return a ``keras.Input`` for each column."""
    return {name: keras.Input(spec.shape, dtype=spec.dtype, name=name) for name, spec in inputs.items()}


def check_image_inputs(inputs: Mapping[str, InputSpec], *, columns: int) -> None:
    """Raise UsageError unless there are ``columns`` inputs, all of them images or flow fields of a fixed size."""
    for name, spec in inputs.items():
        if not spec.is_image:
            raise UsageError(
                f"it reads images or flow fields; {name!r} has the shape {list(spec.shape)} per clip"
            )
        if None in spec.shape:
            raise UsageError(f"it needs clips of one size, and {name!r} is not cropped: set crop")
    if len(inputs) != columns:
        raise UsageError(
            f"it reads {columns} column{'s' if columns > 1 else ''} of images or flow fields, not {len(inputs)}: "
            f"{', '.join(inputs)}"
        )


def check_feature_inputs(inputs: Mapping[str, InputSpec]) -> None:
    """Raise UsageError unless every input is [steps, ...] float32 of a fixed size, with the same number of steps."""
    for name, spec in inputs.items():
        if len(spec.shape) < 2 or spec.dtype == "uint8":
            raise UsageError(f"it reads features; {name!r} has the shape {list(spec.shape)} per clip")
        if None in spec.shape:
            raise UsageError(f"it needs clips of one size, and {name!r} is not cropped: set crop")
    if len({spec.shape[0] for spec in inputs.values()}) > 1:
        steps = ", ".join(f"{name!r} {spec.shape[0]}" for name, spec in inputs.items())
        raise UsageError(f"it reads columns with the same number of steps, not {steps}")


def rms_normalised(x: Any) -> Any:
    """Scale vectors [..., d] to a root mean square of 1.

    The outputs of networks differ by orders of magnitude. Batch normalisation alone cannot scale up values that are
    small compared with its epsilon.
    """
    # In float32, because float16 cannot hold the sums of squares and Keras' epsilon.
    unit_length = keras.layers.UnitNormalization(dtype="float32")(x)
    return keras.layers.Rescaling(x.shape[-1] ** 0.5)(unit_length)
