"""Networks of keras.applications as the first part of a model: their input as they were trained, their weights."""

import importlib
import warnings
from typing import Any

import keras

from reelmill.datasets import storage
from reelmill.datasets.errors import UsageError, one_line, suggest


def backbone_features(
    pictures: Any, backbone: str, *, weights: str | None, trainable: bool, name: str
) -> Any:
    """What a network without its classifier makes of pictures: [b, d], averaged over the picture.

    Args:
        pictures: [b, h, w, c]: uint8 RGB, which the network gets as its weights were trained on it; or anything else,
            which it gets normalised.
        backbone: name in keras.applications, however it is capitalised.
        weights: ``imagenet``, ``random``, or path or URL of a weights file; None: ``imagenet`` for RGB, else
            ``random``.
        trainable: False: its weights stay, and it runs as in inference (batch normalisation, dropout).
        name: of the network within the model.

    Raises:
        UsageError: there is no such network, or the weights cannot be had or do not fit.
    """
    found = _application(backbone)
    build = getattr(keras.applications, found)
    shape = tuple(pictures.shape[1:])
    rgb = pictures.dtype == "uint8" and shape[-1] == 3
    weights = weights or ("imagenet" if rgb else "random")
    if weights == "imagenet" and not rgb:
        raise UsageError(
            f"weights 'imagenet' are for RGB, and {found} gets {shape[-1]} channels: random, or a weights file"
        )
    network = _network(build, shape=shape, weights=weights, name=name)
    if rgb:
        x = prepared(pictures, build)
    else:
        x = keras.layers.BatchNormalization(momentum=0.8)(keras.ops.cast(pictures, "float32"))
    network.trainable = trainable
    return network(x) if trainable else network(x, training=False)


def prepared(pictures: Any, build: Any) -> Any:
    """Pictures [b, h, w, 3] uint8 RGB as the weights of a network of keras.applications were trained on them."""
    return importlib.import_module(build.__module__).preprocess_input(keras.ops.cast(pictures, "float32"))


def _application(name: str) -> str:
    known: dict[str, str] = {
        key.lower(): key
        for key, value in vars(keras.applications).items()
        if key[0].isupper() and callable(value)
    }
    if name.lower() in known:
        return known[name.lower()]
    hint = suggest(name, sorted(known.values()))
    raise UsageError(f"backbone {name!r} is no network of keras.applications{hint}")


def _network(build: Any, *, shape: tuple[int, ...], weights: str, name: str) -> Any:
    with warnings.catch_warnings():
        # said where pictures have another size than those of the weights, or not 3 channels: neither matters here
        warnings.filterwarnings("ignore", category=UserWarning, module="keras.src.applications")
        try:
            network = build(
                include_top=False,
                pooling="avg",
                input_shape=shape,
                weights="imagenet" if weights == "imagenet" else None,
                name=name,
            )
        except Exception as error:
            if type(error) is not Exception:  # the one kind that Keras raises where a download fails
                raise
            raise UsageError(
                f"weights 'imagenet' of {build.__name__} cannot be downloaded: name a weights file, or take random"
            ) from error
    if weights in ("imagenet", "random"):
        return network
    try:
        with storage.local_file(weights) as path:
            network.load_weights(path)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"weights {weights!r} do not fit {build.__name__} without its classifier: {one_line(error)}"
        ) from None
    return network
