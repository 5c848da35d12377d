"""Reading through a tf.data service, in exactly the order of reading without it."""

import threading
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from reelmill.datasets.errors import UsageError
from reelmill.train.loading.graph_checks import asserted
from reelmill.train.loading.service_server import Address

ANSWER_SECONDS = 15
"""How long all workers may take to answer."""
HINT = tf.data.experimental.SHARD_HINT
"""Stands for a worker's number, and for the number of workers, in what is sent to them."""


def served(
    batches: tf.data.Dataset,
    build: Callable[[tf.data.Dataset], tf.data.Dataset],
    *,
    service: Address,
    workers: int,
) -> tf.data.Dataset:
    """What ``build(batches)`` delivers, loaded by the workers of a service.

    Of N workers, number k builds the elements k, k + N, k + 2 N and so on, and they are taken in turn. A job of the
    service gives each worker's elements in their order, but those of different workers as they come (even its
    coordinated reads pass by a worker that needs more than 100 ms); so each worker has a job of its own.

    Args:
        batches: what each element is built from; their cardinality is known.
        build: gives one element for each, in order.
        service: where the dispatcher is.
        workers: how many it has, as :func:`count_workers` says.

    Reading ends with ``tf.errors.InvalidArgumentError`` or ``tf.errors.NotFoundError`` where a worker was lost or
    started anew in between.
    """
    parts = [_part(batches, build, worker=k, workers=workers, service=service) for k in range(workers)]
    turns = tf.data.Dataset.range(workers).repeat()
    steps = batches.cardinality()
    in_turn = tf.data.Dataset.choose_from_datasets(parts, turns).take(steps)
    return in_turn.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(tf.data.AUTOTUNE)


def _part(
    batches: tf.data.Dataset,
    build: Callable[[tf.data.Dataset], tf.data.Dataset],
    *,
    worker: int,
    workers: int,
    service: Address,
) -> tf.data.Dataset:
    """The elements of one worker; the job runs on all of them, and the others find nothing to do."""
    share = batches.shard(workers, worker)
    own_number = tf.data.Dataset.range(workers).shard(HINT, HINT)
    mine = own_number.filter(lambda number: number == worker).flat_map(lambda _: share)

    def checked(expected: tf.Tensor, element: tuple[tf.Tensor, Any]) -> Any:
        number, batch = element
        message = f"a worker of the tf.data service {service.url} was started anew: start again at batch"
        return asserted(batch, number == expected, message, expected * workers + worker)

    numbered = _distributed(build(mine).enumerate(), service)
    return numbered.enumerate().map(checked).prefetch(1)


def count_workers(service: Address) -> int:
    """How many workers a service has; returns when all have answered.

    Raises:
        UsageError: the service, or one of its workers, does not answer.
    """
    if not service.answers():
        raise UsageError(
            f"no tf.data service answers at {service.url}: start one with "
            f"`reelmill serve dispatcher --port {service.port}` and `reelmill serve worker`, or set service to null"
        )
    roll = _RollCall(service)
    roll.start()
    roll.join(ANSWER_SECONDS)
    if roll.error is not None:
        reason = " ".join(str(roll.error.message).split("}} ")[-1].split())
        raise UsageError(
            f"{service.url} is no dispatcher that `reelmill serve dispatcher` started: {reason}"
        ) from roll.error
    if not roll.total or len(roll.seen) < roll.total:
        there = f"{len(roll.seen)} of {roll.total} workers" if roll.total else "none of the workers"
        raise UsageError(
            f"{there} of the tf.data service {service.url} answered within {ANSWER_SECONDS} s: "
            "start all that it was started for, with `reelmill serve worker`"
        )
    return roll.total


class _RollCall(threading.Thread):
    """Asks each worker for its number and for the number of all; a thread, for TensorFlow would wait for ever."""

    def __init__(self, service: Address) -> None:
        super().__init__(daemon=True)
        self.service = service
        self.seen: set[int] = set()
        self.total = 0
        self.error: tf.errors.OpError | None = None

    def run(self) -> None:
        # worker k of N says k and k + N
        answers = tf.data.Dataset.counter().shard(HINT, HINT).batch(2).take(1).repeat()
        try:
            for first, second in _distributed(answers, self.service).as_numpy_iterator():
                self.seen.add(int(first))
                self.total = int(second - first)
                if len(self.seen) == self.total:
                    return
                time.sleep(0.02)
        except tf.errors.OpError as error:
            self.error = error


def _distributed(dataset: tf.data.Dataset, service: Address) -> tf.data.Dataset:
    """What the workers make of ``dataset``, in which HINT tells one from another; each iteration is a job of its own.

    Uncompressed: frames are noise to a compressor, and packing them costs more than sending them.
    """
    return dataset.apply(
        tf.data.experimental.service.distribute(
            processing_mode=tf.data.experimental.service.ShardingPolicy.HINT,
            service=service.url,
            max_outstanding_requests=1,
            compression=None,
        )
    )
