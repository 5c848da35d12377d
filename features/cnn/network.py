"""A network in a worker: loaded once, run on batches of one size.

The only file outside of ``train/`` that imports Keras, and only when a network is loaded. A process holds one
network at a time, whichever of its threads asks.
"""

import contextlib
import os
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelmill.datasets.errors import UsageError, one_line
from reelmill.features.cnn.applications import is_path
from reelmill.features.cnn.loading import NetworkSpec, Run, load_model

_SCALES = {None: (1.0, 0.0), "0..255": (1.0, 0.0), "0..1": (1 / 255, 0.0), "-1..1": (1 / 127.5, -1.0)}
"""Factor and offset that bring uint8 to a range."""


class Network:
    """A loaded network, for batches of one size.

    Args:
        spec: which.
        run: of a batch as the network takes it, a TensorFlow function.
        input_shape: of one input.
        alone: the rows' features are known not to depend on the rest of the batch.
    """

    def __init__(self, spec: NetworkSpec, run: Run, *, input_shape: tuple[int, ...], alone: bool) -> None:
        tf, _ = _libraries()
        self.input_shape = input_shape
        """[h, w, c] or [t, h, w, c]"""
        self.input_dtype = np.dtype(np.float32 if spec.floats else np.uint8)
        self.batch_size = spec.batch_size
        signature = tf.TensorSpec((spec.batch_size, *input_shape), self.input_dtype)
        self._run = tf.function(run, input_signature=[signature], autograph=False)
        try:
            shape = self.features(self.buffer()).shape
        except (ValueError, TypeError, tf.errors.OpError) as error:
            raise UsageError(f"model = {spec.model!r} cannot be run: {one_line(error)}") from None
        if shape[0] != spec.batch_size:
            raise UsageError(f"model = {spec.model!r} makes {shape[0]} outputs of {spec.batch_size} inputs")
        self.output_shape = shape[1:]
        """Of the features of one input."""
        self.rows_are_alone = alone or self._rows_are_alone()
        """Whether an input's features depend, to the last bit, on neither its place nor its company in a batch."""

    def buffer(self) -> NDArray[Any]:
        """An empty batch."""
        return np.zeros((self.batch_size, *self.input_shape), self.input_dtype)

    def features(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Features of a whole batch: [b, ...] float32."""
        features: NDArray[np.float32] = self._run(batch).numpy()
        return features

    def _rows_are_alone(self) -> bool:
        batch = self.buffer()
        noise = np.random.default_rng(0).integers(0, 255, size=batch.shape, dtype=np.uint8)
        batch[...] = noise if batch.dtype == np.uint8 else noise / np.float32(127.5) - np.float32(1)
        expected = self.features(batch)
        rolled = np.roll(self.features(np.roll(batch, 1, axis=0)), -1, axis=0)
        lone = self.buffer()
        lone[self.batch_size // 2] = batch[self.batch_size // 2]
        middle = self.features(lone)[self.batch_size // 2]
        return np.array_equal(expected, rolled) and np.array_equal(expected[self.batch_size // 2], middle)


_lock = threading.Lock()
_loaded: dict[str, Network] = {}


def load_network(spec: NetworkSpec, *, key: str) -> Network:
    """The network, loaded once per process as long as no other is asked for.

    Args:
        spec: which.
        key: equal for equal networks, whatever the paths of their files.

    Raises:
        UsageError: TensorFlow is not installed, the model, its weights or its layer are not there, or it cannot
            take such input.
    """
    with _lock:
        if key not in _loaded:
            _loaded.clear()  # two large networks may be more than a worker has room for
            _loaded[key] = _load(spec)
        return _loaded[key]


def _libraries() -> tuple[Any, Any]:
    """TensorFlow and Keras, quiet and with one thread on a processor: the workers are the parallelism."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        import keras
        import tensorflow as tf
    except ModuleNotFoundError as error:
        raise UsageError(
            f"features need {error.name}, which is not installed: pip install 'reelmill[train]'"
        ) from None
    if keras.backend.backend() != "tensorflow":
        raise UsageError(f"KERAS_BACKEND = {keras.backend.backend()!r}: features need 'tensorflow'")
    return tf, keras


def uses_gpu() -> bool:
    """Whether networks run on a GPU here; decides, with the first call, how TensorFlow is set up."""
    tf, _ = _libraries()
    gpus = tf.config.list_physical_devices("GPU")
    with contextlib.suppress(RuntimeError):  # TensorFlow is running already: somebody else set it up
        if gpus:
            for gpu in gpus:
                tf.config.experimental.set_memory_growth(gpu, True)
        elif tf.config.threading.get_intra_op_parallelism_threads() != 1:
            tf.config.threading.set_inter_op_parallelism_threads(1)
            tf.config.threading.set_intra_op_parallelism_threads(1)
    # TF32 keeps 10 bits of a product's factors: features would differ from a processor's in the third digit
    tf.config.experimental.enable_tensor_float_32_execution(False)
    return bool(gpus)


def _load(spec: NetworkSpec) -> Network:
    on_gpu = uses_gpu()
    tf, keras = _libraries()
    keras.utils.clear_session()  # layers named by counting, as conv2d_7, would go on from those of other models
    run, shape = load_model(tf, keras, spec)
    # With one thread, rows were the same to the last bit at any place and in any company in batches of 7, 8, 13
    # and 16 of VGG16, ResNet50, InceptionV3, MobileNet(V2), DenseNet121, EfficientNetB0 and ConvNeXtTiny. With two,
    # ConvNeXtTiny's were not. What a saved model does inside is unknown.
    one_thread = tf.config.threading.get_intra_op_parallelism_threads() == 1 and not on_gpu
    return Network(
        spec, _finished(tf, spec, run), input_shape=shape, alone=one_thread and not is_path(spec.model)
    )


def _finished(tf: Any, spec: NetworkSpec, run: Run) -> Run:
    """What goes round the network: the scale of its input, pooling and principal components of its output."""
    factor, offset = _SCALES[spec.scale]

    def whole(batch: Any) -> Any:
        found = run(tf.cast(batch, tf.float32) * factor + offset)
        if not isinstance(found, tf.Tensor):
            raise UsageError(f"model = {spec.model!r} has several outputs: name one with `layer`")
        found = tf.cast(found, tf.float32)
        if spec.pool is not None and len(found.shape) > 2:
            reduce = tf.reduce_mean if spec.pool == "avg" else tf.reduce_max
            found = reduce(found, axis=list(range(1, len(found.shape) - 1)))
        if spec.pca is not None:
            if found.shape[1:] != spec.pca.mean.shape:
                raise UsageError(
                    f"pca was fitted to features of {len(spec.pca.mean)} values; "
                    f"those of {spec.model!r} have the shape {tuple(found.shape[1:])}"
                )
            found = tf.matmul(found - spec.pca.mean, spec.pca.matrix(whiten=spec.whiten))
        return found

    return whole
