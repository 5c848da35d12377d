"""What the models of this folder can read, checked before Keras would fail on it with a page."""

from collections.abc import Mapping
from typing import Any

import keras

from reelmill.datasets.errors import UsageError
from reelmill.train.models import InputSpec


def tensors(inputs: Mapping[str, InputSpec]) -> dict[str, Any]:
    """A Keras input for each of them."""
    return {name: keras.Input(spec.shape, dtype=spec.dtype, name=name) for name, spec in inputs.items()}


def check_pictures(inputs: Mapping[str, InputSpec], *, columns: int) -> None:
    """Raise UsageError unless there are so many columns, of pictures or of fields like them, of one size."""
    for name, spec in inputs.items():
        if not spec.pictorial:
            raise UsageError(f"it reads pictures or fields; {name!r} gives {list(spec.shape)} for a clip")
        if None in spec.shape:
            raise UsageError(f"it needs clips of one size, not whole pictures of {name!r}: set crop")
    if len(inputs) != columns:
        raise UsageError(
            f"it reads {columns} column{'s' if columns > 1 else ''} of pictures or fields, not {len(inputs)}: "
            f"{', '.join(inputs)}"
        )


def check_features(inputs: Mapping[str, InputSpec]) -> None:
    """Raise UsageError unless every column gives numbers for the same steps: [steps, ...] float32."""
    for name, spec in inputs.items():
        if len(spec.shape) < 2 or spec.dtype == "uint8":
            raise UsageError(f"it reads features; {name!r} gives {list(spec.shape)} for a clip")
        if None in spec.shape:
            raise UsageError(f"it needs clips of one size, not whole fields of {name!r}: set crop")
    if len({spec.shape[0] for spec in inputs.values()}) > 1:
        steps = ", ".join(f"{name!r} {spec.shape[0]}" for name, spec in inputs.items())
        raise UsageError(f"it reads columns together that have equally many steps, not {steps}")


def unit(x: Any) -> Any:
    """[..., d] brought to a length at which each value is about 1.

    Networks differ by orders of magnitude in what they give, and batch normalisation alone cannot lift values that are
    small against its epsilon.
    """
    # sums of squares and Keras' epsilon are too large and too small for float16
    normal = keras.layers.UnitNormalization(dtype="float32")(x)
    return keras.layers.Rescaling(x.shape[-1] ** 0.5)(normal)
