"""Which backend Keras runs on; to be settled before Keras is imported. Imports no TensorFlow."""

import os
import sys

from reelmill.datasets.errors import UsageError
from reelmill.train.options import TrainOptions

DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
"""XLA's flag for what tf.config.experimental.enable_op_determinism is to TensorFlow."""


def choose(options: TrainOptions) -> None:
    """Let Keras run on JAX where the strategy is ``data_parallel``, else on what KERAS_BACKEND says.

    Raises:
        UsageError: Keras is imported already and runs on another backend.
    """
    if options.strategy != "data_parallel":
        return
    keras = sys.modules.get("keras")
    if keras is not None and keras.backend.backend() != "jax":
        raise UsageError(
            f"strategy 'data_parallel' needs Keras on JAX, and Keras runs on {keras.backend.backend()}: "
            "set KERAS_BACKEND=jax before Keras is imported"
        )
    os.environ["KERAS_BACKEND"] = "jax"
    if options.deterministic and "--xla_gpu_deterministic_ops" not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DETERMINISTIC}".strip()
