"""Networks of keras.applications without their classifier, as the first part of a model."""

import importlib
import warnings
from typing import Any

import keras

from reelmill.datasets import storage
from reelmill.datasets.errors import UsageError, one_line, suggest


def backbone_features(images: Any, backbone: str, *, weights: str | None, trainable: bool, name: str) -> Any:
    """Apply a network without its classifier to images; return features [b, d], averaged over the image.

    Args:
        images: [b, h, w, c]. uint8 RGB is preprocessed as the network's ImageNet weights require; any other input is
            batch-normalised.
        backbone: name in keras.applications, in any capitalisation.
        weights: ``imagenet``, ``random``, or path or URL of a weights file; None: ``imagenet`` for RGB, otherwise
            ``random``.
        trainable: False: the weights are frozen, and batch normalisation and dropout run in inference mode.
        name: name of the network as a layer of the model.

    Raises:
        UsageError: there is no such network, or the weights cannot be loaded or do not fit.
    """
    application = _application_name(backbone)
    build = getattr(keras.applications, application)
    shape = tuple(images.shape[1:])
    is_rgb = images.dtype == "uint8" and shape[-1] == 3
    weights = weights or ("imagenet" if is_rgb else "random")
    if weights == "imagenet" and not is_rgb:
        raise UsageError(
            f"weights 'imagenet' are for RGB, and the input of {application} has {shape[-1]} channels: "
            "set weights to random, or to a weights file"
        )
    network = _network(build, shape=shape, weights=weights, name=name)
    if is_rgb:
        x = preprocess(images, build)
    else:
        x = keras.layers.BatchNormalization(momentum=0.8)(keras.ops.cast(images, "float32"))
    network.trainable = trainable
    return network(x) if trainable else network(x, training=False)


def preprocess(images: Any, build: Any) -> Any:
    """Preprocess uint8 RGB images [b, h, w, 3] as the ImageNet weights of a network of keras.applications require."""
    return importlib.import_module(build.__module__).preprocess_input(keras.ops.cast(images, "float32"))


def _application_name(name: str) -> str:
    names: dict[str, str] = {
        key.lower(): key
        for key, value in vars(keras.applications).items()
        if key[0].isupper() and callable(value)
    }
    if name.lower() in names:
        return names[name.lower()]
    hint = suggest(name, sorted(names.values()))
    raise UsageError(f"backbone {name!r} is not a network of keras.applications{hint}")


def _network(build: Any, *, shape: tuple[int, ...], weights: str, name: str) -> Any:
    with warnings.catch_warnings():
        # Keras warns if the input has another size than the weights were trained on, or not 3 channels. Both are valid.
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
            if type(error) is not Exception:  # Keras raises a plain Exception only if a download fails
                raise
            raise UsageError(
                f"weights 'imagenet' of {build.__name__} cannot be downloaded: "
                "set weights to a weights file, or to random"
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
