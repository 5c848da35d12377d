"""The models that training knows, by name.

A model is one file with a function ``build(inputs, classes, activation, ...)``: ``inputs`` are the
:class:`InputSpec` of what it gets, by name, and the output is one probability per class, of ``activation``: softmax
where a clip has one label, sigmoid where it may have several. What else it takes are the model's arguments. Adding one
is a file here and a line below.
"""

import importlib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from reelmill.datasets.errors import UsageError

MODELS = {
    "frame_cnn": "a small CNN on each picture, its features averaged over time",
    "feature_mlp": "mean and maximum of features over time, and one hidden layer",
}
"""Each is ``build`` in the file of its name."""


class InputSpec(NamedTuple):
    """What a model gets of one column."""

    shape: tuple[int, ...]
    """Without the batch: steps first, as [frames, height, width, 3]."""
    dtype: str
    """``uint8`` for frames, else ``float32``."""

    @property
    def pictorial(self) -> bool:
        """Whether it is pictures, or fields like them: [steps, height, width, channels]."""
        return len(self.shape) == 4


def suitable(inputs: Mapping[str, InputSpec]) -> str:
    """Name of the model for the first of these inputs.

    >>> suitable({"frames": InputSpec((8, 112, 112, 3), "uint8")}), suitable({"rgb": InputSpec((8, 512), "float32")})
    ('frame_cnn', 'feature_mlp')
    """
    return "frame_cnn" if next(iter(inputs.values())).pictorial else "feature_mlp"


def build(
    name: str,
    *,
    inputs: Mapping[str, InputSpec],
    classes: int,
    labels: Literal["single", "multi"] = "single",
    arguments: Mapping[str, Any] | None = None,
) -> Any:
    """A new, uncompiled Keras model of a dictionary of inputs.

    Args:
        name: one of :data:`MODELS`.
        inputs: what it gets, by name.
        classes: length of the output.
        labels: ``single``: the outputs of a clip sum to 1; ``multi``: each is a probability of its own.
        arguments: what the model's ``build`` takes besides.

    Raises:
        UsageError: there is no such model, or it can do nothing with one of the inputs.
    """
    if name not in MODELS:
        raise UsageError(f"model {name!r}: valid are {', '.join(MODELS)}, or null")
    for key, spec in inputs.items():
        if None in spec.shape:
            raise UsageError(
                f"model {name!r} needs clips of one size, not whole pictures of {key!r}: set crop"
            )
        if len(spec.shape) < 2 or spec.pictorial != (name == "frame_cnn"):
            reads = "pictures or fields" if name == "frame_cnn" else "features"
            raise UsageError(f"model {name!r} reads {reads}; {key!r} gives {list(spec.shape)} for a clip")
    activation = "softmax" if labels == "single" else "sigmoid"
    module = importlib.import_module(f"{__name__}.{name}")
    return module.build(inputs, classes, activation, **(arguments or {}))
