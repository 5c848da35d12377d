"""Networks as Keras and TensorFlow load them: those of keras.applications, and saved models of one's own.

Imports neither: :mod:`reelmill.features.cnn.network` passes both in.
"""

import contextlib
import fcntl
import importlib
import os
import random
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np

from reelmill.datasets import storage
from reelmill.datasets.errors import UsageError, one_line, suggest
from reelmill.features.cnn.applications import is_path
from reelmill.features.cnn.pca import Pca

Pool = Literal["avg", "max"]
Scale = Literal["0..255", "0..1", "-1..1"]
Run = Callable[[Any], Any]
"""Of a float32 tensor with a batch, to its output."""
_UNLOADABLE = (ValueError, TypeError, OSError, KeyError, AttributeError, ImportError, zipfile.BadZipFile)
"""What Keras and TensorFlow raise about files that are not what they should be."""


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """Which network, and which of its outputs."""

    model: str
    """Name in keras.applications, or path of a .keras or .h5 file or of a SavedModel's folder."""
    layer: str | None = None
    """Layer whose output is wanted, or output of a SavedModel; None: the last one before a classifier."""
    pool: Pool | None = "avg"
    """What becomes of all axes but the first and the last."""
    weights: str | None = None
    """``imagenet``, ``random`` or a path; None: imagenet, or a saved model's own."""
    seed: int = 0
    """Of random weights."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the function in keras.applications."""
    endpoint: str = "serving_default"
    """Signature of a SavedModel."""
    input_shape: tuple[int | None, ...]
    """[h, w, c] or [t, h, w, c]; None: what the model says."""
    floats: bool = False
    """Whether the input comes as float32 on the scale it is wanted in, rather than as uint8."""
    scale: Scale | None = None
    """Scale of uint8 pictures; None: an application's own preprocessing, ``0..255`` for saved models."""
    batch_size: int = 32
    pca: Pca | None = None
    """Applied to features of one axis."""
    whiten: bool = True


def load_model(tf: Any, keras: Any, spec: NetworkSpec) -> tuple[Run, tuple[int, ...]]:
    """The model as a function of a batch, and the shape of one input.

    Raises:
        UsageError: the model, its weights or its layer are not there, or it takes other input.
    """
    if not is_path(spec.model):
        return _application(keras, spec)
    return _saved_model(tf, spec) if Path(spec.model).is_dir() else _keras_file(keras, spec)


def _application(keras: Any, spec: NetworkSpec) -> tuple[Run, tuple[int, ...]]:
    """A network of keras.applications with the preprocessing that its weights were trained with."""
    build = getattr(keras.applications, spec.model)
    preprocess = importlib.import_module(build.__module__).preprocess_input
    model, output = _with_layer(keras, build, spec)
    network = keras.Model(model.inputs, output)
    shape = _known_shape(spec, tuple(model.inputs[0].shape[1:]))
    if spec.floats or spec.scale is not None:
        return lambda batch: network(batch, training=False), shape
    return lambda batch: network(preprocess(batch), training=False), shape


def _with_layer(keras: Any, build: Callable[..., Any], spec: NetworkSpec) -> tuple[Any, Any]:
    """The network and the output wanted: without its classifier, unless the layer is part of that."""
    names: list[str] = []
    problem: UsageError | None = None
    for top in (False,) if spec.layer is None else (False, True):
        # whether the layer is there, random weights tell as well; only then are others worth a download
        plain = spec.weights == "random" or (spec.weights or "imagenet") != "imagenet"
        model = _built(keras, build, spec, top=top, weights=None)
        names += [layer.name for layer in model.layers if layer.name not in names]
        if spec.layer is not None and spec.layer not in {layer.name for layer in model.layers}:
            continue
        if not plain:
            with _downloading(spec.model):
                model = _built(keras, build, spec, top=top, weights="imagenet")
        elif spec.weights != "random":
            try:
                _read_weights(model, spec)
            except (
                UsageError
            ) as error:  # a file of the whole network does not fit the one without a classifier
                problem = error
                continue
        return model, model.output if spec.layer is None else model.get_layer(spec.layer).output
    hint = suggest(spec.layer or "", names) or f"; the last are {', '.join(names[-8:])}"
    raise problem or UsageError(f"layer = {spec.layer!r} is not in {spec.model}{hint}")


def _built(
    keras: Any, build: Callable[..., Any], spec: NetworkSpec, *, top: bool, weights: str | None
) -> Any:
    pooling = {"pooling": spec.pool} if not top and spec.layer is None else {}
    try:
        with _seeded(keras, spec.seed), warnings.catch_warnings():
            # of pictures; a stack of flow has more
            warnings.filterwarnings("ignore", message="This model usually expects", category=UserWarning)
            keras.utils.clear_session()
            return build(
                weights=weights, include_top=top, input_shape=spec.input_shape, **pooling, **spec.arguments
            )
    except (ValueError, TypeError) as error:
        raise UsageError(f"model = {spec.model!r} cannot be built: {one_line(error)}") from None


@contextlib.contextmanager
def _seeded(keras: Any, seed: int) -> Iterator[None]:
    """Seed what Keras draws weights from, and leave the generators of everybody else as they were."""
    python, legacy = random.getstate(), np.random.get_state()
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)


@contextlib.contextmanager
def _whole() -> Iterator[None]:
    """Raise what Keras only warns about: layers that would keep their random weights."""
    with warnings.catch_warnings():
        for message in ("Skipping", "A total of"):
            warnings.filterwarnings("error", message=message, category=UserWarning)
        yield


def _read_weights(model: Any, spec: NetworkSpec) -> None:
    assert spec.weights is not None
    try:
        with storage.local_file(spec.weights) as path, _whole():
            model.load_weights(path)
    except (*_UNLOADABLE, UserWarning) as error:
        raise UsageError(f"weights = {spec.weights!r} do not fit {spec.model}: {one_line(error)}") from None


class _downloading:  # noqa: N801 - reads as a function
    """One process at a time fetches weights; what Keras says about a failure becomes one line."""

    def __init__(self, model: str) -> None:
        self._model = model

    def __enter__(self) -> None:
        name = f"reelmill-weights-{os.getuid()}.lock"
        self._file = open(os.path.join(tempfile.gettempdir(), name), "w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._file.close()
        # Keras raises a bare Exception when a download fails
        if error is not None and (kind is Exception or isinstance(error, OSError)):
            raise UsageError(
                f"weights = 'imagenet' of {self._model} cannot be downloaded ({one_line(error)}): "
                "name a weights file, or take 'random'"
            ) from None


def _keras_file(keras: Any, spec: NetworkSpec) -> tuple[Run, tuple[int, ...]]:
    """A model in a .keras or .h5 file."""
    try:
        with storage.local_file(spec.model) as path, _whole():
            model = keras.saving.load_model(path, compile=False)
    except (*_UNLOADABLE, UserWarning) as error:
        raise UsageError(f"model = {spec.model!r} cannot be loaded: {one_line(error)}") from None
    if spec.weights is not None:
        _read_weights(model, spec)
    if len(model.inputs) != 1:
        raise UsageError(f"model = {spec.model!r} has {len(model.inputs)} inputs; features are made with one")
    output = model.outputs[0] if len(model.outputs) == 1 else model.outputs
    if spec.layer is not None:
        names = [layer.name for layer in model.layers]
        if spec.layer not in names:
            hint = suggest(spec.layer, names) or f"; the last are {', '.join(names[-8:])}"
            raise UsageError(f"layer = {spec.layer!r} is not in {spec.model!r}{hint}")
        try:
            output = model.get_layer(spec.layer).output
        except (AttributeError, ValueError) as error:
            raise UsageError(f"layer = {spec.layer!r} has no one output: {one_line(error)}") from None
    network = keras.Model(model.inputs, output)
    shape = _known_shape(spec, tuple(model.inputs[0].shape[1:]))
    return lambda batch: network(batch, training=False), shape


def _saved_model(tf: Any, spec: NetworkSpec) -> tuple[Run, tuple[int, ...]]:
    """A signature of a SavedModel, as ``model.export`` and TensorFlow Hub write them."""
    try:
        loaded = tf.saved_model.load(spec.model)
    except (*_UNLOADABLE, tf.errors.OpError) as error:
        raise UsageError(f"model = {spec.model!r} cannot be loaded: {one_line(error)}") from None
    signatures = dict(loaded.signatures)
    if spec.endpoint not in signatures:
        raise UsageError(
            f"endpoint = {spec.endpoint!r} is not in {spec.model!r}{suggest(spec.endpoint, signatures)}"
        )
    signature = signatures[spec.endpoint]
    inputs = signature.structured_input_signature[1]
    outputs = signature.structured_outputs
    if len(inputs) != 1:
        raise UsageError(f"model = {spec.model!r} has {len(inputs)} inputs; features are made with one")
    ((name, wanted),) = inputs.items()
    layer = spec.layer or (next(iter(outputs)) if len(outputs) == 1 else "")
    if layer not in outputs:
        raise UsageError(f"layer = {spec.layer!r} is no output of {spec.model!r}{suggest(layer, outputs)}")

    def run(batch: Any, _kept: Any = loaded) -> Any:  # a signature does not keep its variables alive
        return signature(**{name: tf.cast(batch, wanted.dtype)})[layer]

    return run, _known_shape(spec, tuple(wanted.shape[1:]))


def _known_shape(spec: NetworkSpec, own: tuple[int | None, ...]) -> tuple[int, ...]:
    """The shape of one input: what was asked for where the model leaves it open, or else the model's."""
    if len(own) != len(spec.input_shape):
        raise UsageError(
            f"model = {spec.model!r} takes inputs of the shape {own}, not of {len(spec.input_shape)} axes: "
            "change `input`"
        )
    merged = [
        given if given is not None else inner for given, inner in zip(spec.input_shape, own, strict=True)
    ]
    if None in merged:
        raise UsageError(f"model = {spec.model!r} takes pictures of any size: give `size`")
    for value, inner in zip(merged, own, strict=True):
        if inner is not None and value != inner:
            raise UsageError(
                f"model = {spec.model!r} takes inputs of the shape {own}, not {tuple(spec.input_shape)}: "
                "change `size`, `input` or `length`"
            )
    return tuple(int(value) for value in merged if value is not None)
