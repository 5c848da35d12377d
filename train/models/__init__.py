"""The models that training knows, by name, and how one is found, checked and built.

A model is one file with a function ``build(inputs, classes, activation, ...)`` that returns an uncompiled Keras model:

- ``inputs``: the :class:`InputSpec` of what it gets, by name; the Keras model takes a dictionary of them;
- ``classes`` and ``activation``: the output is float32 [b, classes], one probability per class: of ``softmax`` where a
  clip has one label, of ``sigmoid`` where it may have several. ``dtype="float32"`` on the last layer keeps it so
  under mixed precision;
- what else the function takes are the model's arguments; their annotations are what values are checked by.

Adding one is such a file and a line below; one of your own is named ``module:callable`` in params.yaml and needs
neither.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from reelmill.datasets import plugins
from reelmill.datasets.errors import UsageError, one_line

MODELS = {
    "frame_cnn": "reelmill.train.models.frame_cnn:build",
    "feature_mlp": "reelmill.train.models.feature_mlp:build",
    "lstm": "reelmill.train.models.recurrent:lstm",
    "gru": "reelmill.train.models.recurrent:gru",
    "bilstm": "reelmill.train.models.recurrent:bilstm",
    "two_stream": "reelmill.train.models.two_stream:build",
}
"""Where each is, as ``module:callable``; imported when it is asked for."""

Builder: TypeAlias = Callable[..., Any]


class InputSpec(NamedTuple):
    """What a model gets of one column."""

    shape: tuple[int | None, ...]
    """Without the batch: steps first, as [frames, height, width, 3]. None: differs between clips."""
    dtype: str
    """``uint8`` for frames, else ``float32``."""

    @property
    def pictorial(self) -> bool:
        """Whether it is pictures, or fields like them: [steps, height, width, channels]."""
        return len(self.shape) == 4


def suitable(inputs: Mapping[str, InputSpec]) -> str:
    """Name of the model for these inputs: for pictures and flow together, or else for the first.

    >>> frames, flow = InputSpec((8, 112, 112, 3), "uint8"), InputSpec((8, 112, 112, 2), "float32")
    >>> suitable({"frames": frames}), suitable({"flow": flow}), suitable({"frames": frames, "flow": flow})
    ('frame_cnn', 'frame_cnn', 'two_stream')
    >>> suitable({"rgb": InputSpec((8, 512), "float32")})
    'feature_mlp'
    """
    specs = list(inputs.values())
    if len(specs) == 2 and all(s.pictorial for s in specs) and len({s.dtype for s in specs}) == 2:
        return "two_stream"
    return "frame_cnn" if specs[0].pictorial else "feature_mlp"


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
        name: one of :data:`MODELS`, or ``module:callable``.
        inputs: what it gets, by name.
        classes: length of the output.
        labels: ``single``: the outputs of a clip sum to 1; ``multi``: each is a probability of its own.
        arguments: what the model's function takes besides.

    Raises:
        UsageError: there is no such model, it can do nothing with one of the inputs, or an argument is wrong.
    """
    builder = find(name)
    try:
        chosen = checked(builder, arguments or {})
        return builder(inputs, classes, "softmax" if labels == "single" else "sigmoid", **chosen)
    except ValueError as error:  # ours, and what Keras says of sizes that do not fit
        raise UsageError(f"model {name!r}: {one_line(error)}") from error


def find(name: str) -> Builder:
    """The function that builds a model; the working directory is looked through as well.

    Raises:
        UsageError: there is none of this name, or it takes no inputs, classes and activation.
    """
    if name not in MODELS and ":" not in name:
        raise UsageError(
            f"model {name!r}: valid are {', '.join(MODELS)}, module:callable of your own, or null"
        )
    place = MODELS.get(name, name)
    builder: Builder | None
    module, builder = plugins.load_object(place, subject=f"model {name!r}")
    function = place.partition(":")[2]
    if builder is None or not callable(builder):
        raise UsageError(f"model {name!r}: {module.__name__} has no function {function!r}")
    try:
        inspect.signature(builder).bind_partial({}, 1, "softmax")
    except TypeError:
        raise UsageError(f"model {name!r}: {function} must take (inputs, classes, activation, ...)") from None
    return builder


def checked(builder: Builder, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as the builder's annotations have them.

    Raises:
        UsageError: one is unknown, missing or of another type; the message names those that there are.
    """
    parameters = list(inspect.signature(builder, eval_str=True).parameters.values())[3:]
    known = {p.name: p for p in parameters if p.kind is not p.VAR_KEYWORD}
    takes_any = len(known) < len(parameters)
    values = {}
    for key, value in arguments.items():
        if key not in known and not takes_any:
            raise UsageError(f"there is no argument {key!r}; valid are {', '.join(known) or 'none'}")
        annotation = known[key].annotation if key in known else inspect.Parameter.empty
        values[key] = plugins.validate_value(value, annotation, subject=f"argument {key}")
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in values:
            raise UsageError(f"its argument {key!r} is missing")
    return values
