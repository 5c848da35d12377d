"""Replicas of a model, on one machine or several: what differs between training on one device and on many.

Every replica gets its own, equal part of each global batch from an input pipeline of its own machine; gradients
are averaged over all of them, so the number of replicas changes how fast a training is, not what it computes.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from reelmill.datasets.errors import UsageError
from reelmill.train.loading.order import Share
from reelmill.train.options import TrainOptions

Array = NDArray[Any]


class Replicas:
    """One replica, without a strategy; and what every strategy answers.

    Args:
        count: replicas in all.
        chief: whether this process is the one that writes files.
    """

    def __init__(self, count: int = 1, *, chief: bool = True) -> None:
        self.count = count
        self.chief = chief
        self.alone = True
        """Whether this process is the only one."""

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Where models are made and fitted."""
        return contextlib.nullcontext()

    def prepare(self, model: Any) -> None:
        """Make a compiled model ready for ``fit`` inside of the scope."""

    def distribute(self, dataset_of: Callable[[Share], tf.data.Dataset]) -> Any:
        """What ``fit`` takes, of a function that makes the dataset of a share of the global batches."""
        return dataset_of(Share())

    def validation(self, dataset_of: Callable[[Share], tf.data.Dataset], *, examples: int) -> Any:  # noqa: ARG002
        """The same for validation data, of so many examples."""
        return self.distribute(dataset_of)

    def reader(self, variables: Sequence[Any]) -> Callable[[], list[Array]]:
        """A function that says what each Keras variable holds on each replica: arrays [replicas, ...]."""
        return lambda: [np.asarray(variable.numpy())[None] for variable in variables]

    def write(self, variables: Sequence[Any], values: Sequence[Array]) -> None:
        """Set each Keras variable on each replica: arrays [replicas, ...]."""
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value[0])

    def agree(self, number: int) -> bool:  # noqa: ARG002
        """Whether every worker says the same."""
        return True


class TensorFlowReplicas(Replicas):
    """Replicas of one of TensorFlow's synchronous strategies.

    Args:
        strategy: a ``tf.distribute.Strategy``.
        resolver: which of several workers this is; None: the only one.
    """

    def __init__(self, strategy: Any, *, resolver: Any = None) -> None:
        super().__init__(strategy.num_replicas_in_sync, chief=resolver is None or _is_chief(resolver))
        self.alone = resolver is None
        self._strategy = strategy

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """The strategy's."""
        scope: contextlib.AbstractContextManager[Any] = self._strategy.scope()
        return scope

    def prepare(self, model: Any) -> None:
        """Go round what Keras 3.15 stumbles over with several workers."""
        # Keras would load one global batch only to look at its shapes, and cannot with several workers. Without this
        # note it looks at the first batch of training, and finds the strategy in the scope.
        model._distribute_strategy = None
        if not self.alone:
            # it averages the logs of the workers along their first axis, and they have none
            model.train_step, model.test_step = _with_axis(model.train_step), _with_axis(model.test_step)

    def distribute(self, dataset_of: Callable[[Share], tf.data.Dataset]) -> Any:
        """A distributed dataset: one pipeline for each worker, one batch for each replica."""
        return self._strategy.distribute_datasets_from_function(lambda context: dataset_of(Share.of(context)))

    def reader(self, variables: Sequence[Any]) -> Callable[[], list[Array]]:
        """Gathers from all replicas; every worker has to call it."""

        @tf.function  # type: ignore[untyped-decorator] # TensorFlow ships no types
        def held() -> Any:
            return self._strategy.run(lambda: [tf.identity(v.value)[None] for v in variables])

        return lambda: [np.asarray(self._strategy.gather(value, axis=0)) for value in held()]

    def write(self, variables: Sequence[Any], values: Sequence[Array]) -> None:
        """Set on the replicas of this worker."""

        def assign(every: Any) -> None:
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            for variable, value in zip(variables, every, strict=True):
                variable.assign(tf.gather(value, number))

        @tf.function  # type: ignore[untyped-decorator]
        def assigned(every: Any) -> None:
            self._strategy.run(assign, args=(every,))

        assigned([tf.constant(value) for value in values])

    def agree(self, number: int) -> bool:
        """Every worker has to ask."""
        if self.alone:
            return True
        said = self._strategy.run(lambda: tf.constant([number]))
        return len(set(np.asarray(self._strategy.gather(said, axis=0)).tolist())) == 1


class JaxReplicas(Replicas):
    """Replicas by Keras' ``DataParallel`` on JAX, on the devices of this machine."""

    def __init__(self, devices: list[str]) -> None:
        super().__init__(len(devices))
        self._distribution = keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """The distribution's."""
        scope: contextlib.AbstractContextManager[Any] = self._distribution.scope()
        return scope

    def validation(self, dataset_of: Callable[[Share], tf.data.Dataset], *, examples: int) -> Any:
        """The last batch filled up, as JAX cuts batches into equal parts only; what fills it up weighs nothing."""
        missing = -examples % self.count
        # Keras divides by how many clips there are, filled up or not
        weight = (examples + missing) / examples

        def filled_up(clips: Any, label: tf.Tensor) -> Any:
            count = tf.shape(label)[0]
            places = tf.range(count + -count % self.count)
            filled = tf.nest.map_structure(
                lambda t: tf.gather(t, tf.minimum(places, count - 1)), (clips, label)
            )
            return *filled, weight * tf.cast(places < count, tf.float32)

        return self.distribute(dataset_of).map(filled_up)


def open_replicas(options: TrainOptions) -> Replicas:
    """The replicas of a strategy; before TensorFlow or JAX does anything else, or devices could not be cut any more.

    Raises:
        UsageError: this machine, the backend or the environment does not have what the strategy needs.
    """
    backend = keras.backend.backend()
    if options.replicas is not None and options.strategy in ("none", "multi_worker"):
        raise UsageError(
            f"replicas {options.replicas} with strategy {options.strategy!r}: "
            "set strategy to mirrored or data_parallel, or replicas to null"
        )
    if options.strategy in ("mirrored", "multi_worker") and backend != "tensorflow":
        raise UsageError(
            f"strategy {options.strategy!r} needs Keras on TensorFlow, not on {backend}: unset KERAS_BACKEND"
        )
    if backend != "tensorflow":
        tf.config.set_visible_devices(
            [], "GPU"
        )  # TensorFlow only loads here, and would take all of their memory
    match options.strategy:
        case "none":
            return Replicas()
        case "mirrored":
            return TensorFlowReplicas(_mirrored(options.replicas))
        case "multi_worker":
            return _multi_worker()
        case "data_parallel":
            return JaxReplicas(_first(keras.distribution.list_devices(), options.replicas))


def _multi_worker() -> Replicas:
    try:
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        jobs = resolver.cluster_spec().as_dict()
    except (ValueError, TypeError) as error:
        raise UsageError(f"TF_CONFIG does not describe a cluster: {error}") from None
    if len(jobs.get("chief", [])) + len(jobs.get("worker", [])) < 2:
        raise UsageError(
            "strategy 'multi_worker' needs the environment variable TF_CONFIG on every worker, as "
            '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
        )
    strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    return TensorFlowReplicas(strategy, resolver=resolver)


def _is_chief(resolver: Any) -> bool:
    if resolver.cluster_spec().as_dict().get("chief"):
        return bool(resolver.task_type == "chief")
    return bool(resolver.task_type == "worker" and resolver.task_id == 0)


def _mirrored(replicas: int | None) -> Any:
    """Over GPUs, or where there are none, logical processors, into as many of which as asked for this one is cut."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return tf.distribute.MirroredStrategy(_first([f"/gpu:{i}" for i in range(len(gpus))], replicas))
    (processor,) = tf.config.list_physical_devices("CPU")
    if replicas is not None and tf.config.get_logical_device_configuration(processor) is None:
        parts = [tf.config.LogicalDeviceConfiguration()] * replicas
        with contextlib.suppress(RuntimeError):  # TensorFlow runs already
            tf.config.set_logical_device_configuration(processor, parts)
    processors = _first([cpu.name for cpu in tf.config.list_logical_devices("CPU")], replicas)
    # the default needs the same processors in every training of a process
    return tf.distribute.MirroredStrategy(processors, tf.distribute.ReductionToOneDevice())


def _first(devices: list[str], replicas: int | None) -> list[str]:
    if replicas is not None and replicas > len(devices):
        raise UsageError(f"replicas {replicas}: the devices here are {', '.join(devices)}")
    return devices[:replicas]


def _with_axis(step: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    return lambda data: {name: value[None] for name, value in step(data).items()}
