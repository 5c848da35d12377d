"""Batches on the device that uses them before it asks."""

import tensorflow as tf

from reelmill.datasets.errors import UsageError

AHEAD = 2
"""Batches that wait on the device: one to use next, and one that is being copied."""


def checked_device(name: str) -> str:
    """The full name of a device of this process, as ``/device:GPU:0``. Raises UsageError where there is none."""
    there = [device.name for device in tf.config.list_logical_devices()]
    full = "/device:" + name.upper().rpartition("DEVICE:")[2].lstrip("/")
    if full not in there:
        known = ", ".join(device.removeprefix("/device:") for device in there)
        raise UsageError(f"device {name!r}: there is {known}")
    return full


def on_device(batches: tf.data.Dataset, device: str) -> tf.data.Dataset:
    """The same batches in the memory of a device, the next ones copied while one is used; texts are left out."""
    numbers = [key for key, spec in batches.element_spec.items() if spec.dtype != tf.string]
    kept = batches.map(lambda batch: {key: batch[key] for key in numbers})
    return kept.apply(tf.data.experimental.prefetch_to_device(device, buffer_size=AHEAD))
