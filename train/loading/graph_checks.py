"""Checks inside a tf.data graph."""

from typing import Any, TypeVar

import tensorflow as tf

Values = TypeVar("Values")


def asserted(values: Values, condition: tf.Tensor, *said: Any) -> Values:
    """Tensors as they are; reading them ends with ``tf.errors.InvalidArgumentError`` where a condition is not met.

    Args:
        values: a tensor, or a nest of tensors.
        condition: a bool scalar.
        said: texts and tensors that make up the error's message.
    """
    # raw: tf.debugging.Assert would put a condition around it, which takes longer
    check = tf.raw_ops.Assert(condition=condition, data=list(said))
    with tf.control_dependencies([check]):
        same: Values = tf.nest.map_structure(tf.identity, values)
    return same
