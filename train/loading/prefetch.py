"""Taking each batch while the step before is at work."""

from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Batch = TypeVar("Batch")


def ahead(batches: Iterable[Batch]) -> Generator[Batch]:
    """The same batches, each taken in a thread while the loop has the one before.

    A batch that lies ready still has to be handed over, which under ``tf.distribute`` takes an operation for each
    replica: with 8 replicas on a busy host some 5 to 10 ms of every step, and 0.2 ms with this
    (``benchmarks/input_wait.py``). One batch more is held in memory, and one more may be taken than is used.

    Args:
        batches: a ``tf.data.Dataset``, a distributed one, or any other iterable; with
            ``MultiWorkerMirroredStrategy`` only one without end: the others agree on their end in every step,
            which must not happen while a step is at work.
    """
    end: Any = object()
    iterator = iter(batches)
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        coming = thread.submit(next, iterator, end)
        while (batch := coming.result()) is not end:
            coming = thread.submit(next, iterator, end)
            yield batch
