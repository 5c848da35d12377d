"""The servers of a tf.data service: a dispatcher, and workers that load in a training's stead.

TensorFlow is imported where a server starts: what can be checked before is checked before.
"""

import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from reelmill.datasets.errors import UsageError
from reelmill.train.keras_setup import quiet_import

CHECK_SECONDS = 2
"""From one look of the dispatcher at its workers to the next."""
AGAIN_SECONDS = 0.5
"""From one look of a worker for its dispatcher to the next."""
CONNECT_SECONDS = 5
"""How long a server may take to accept a connection."""
HEARTBEAT_MS = 5_000
"""From one sign of life of a worker to the next; after so long a worker has found a dispatcher that came back."""
FORGET_MS = 30_000
"""How long the workers keep what they loaded for a training that has ended."""
FORGOTTEN = "Unknown iteration client"
"""In what a dispatcher says to a training that reads from it since before it began anew."""


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where a server of the service listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, name: str) -> "Address":
        """The address in ``HOST:PORT`` or ``grpc://HOST:PORT``.

        >>> Address.parse("grpc://loader-1:5050", name="service")
        Address(host='loader-1', port=5050)

        Args:
            text: what the user gave.
            name: of the argument, for the error.

        Raises:
            UsageError: it is no such address.
        """
        found = None
        try:
            parts = urlsplit(text if "://" in text else f"grpc://{text}")
            if parts.scheme == "grpc" and text.endswith(parts.netloc) and "@" not in parts.netloc:
                found = parts.hostname, parts.port
        except ValueError:  # the port is no number, or no port's
            pass
        if not found or not all(found):
            raise UsageError(f"{name} {text!r}: an address is HOST:PORT, as grpc://localhost:5050")
        host, port = found
        assert host
        assert port
        return cls(host, port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """With the protocol, as ``grpc://localhost:5050``."""
        return f"grpc://{self}"

    def answers(self) -> bool:
        """Whether something accepts connections there."""
        try:
            socket.create_connection((self.host, self.port), timeout=CONNECT_SECONDS).close()
        except OSError:
            return False
        return True


def own_host(peers: Sequence[Address]) -> str:
    """What others find this machine by: ``localhost`` where all of them are on it, otherwise its name."""
    near = all(peer.host in {"localhost", "127.0.0.1", "::1"} for peer in peers)
    return "localhost" if near else socket.gethostname()


def serve_dispatcher(
    port: int,
    *,
    workers: Sequence[Address],
    stop: threading.Event,
    started: Callable[[], None],
    tell: Callable[[str], None],
) -> None:
    """Run a dispatcher until ``stop`` is set.

    A training that loses a worker cannot go on, for its order is fixed; TensorFlow would have it wait for the
    worker's return. So where a worker is lost, the dispatcher begins anew, which ends all trainings that use the
    service with an error; the workers that are left find it again by themselves.

    Args:
        port: to listen on, on all of this machine's addresses.
        workers: addresses of all workers that there will be.
        stop: when to end.
        started: called when the dispatcher listens.
        tell: takes a line on a worker that came or went.

    Raises:
        UsageError: the port is taken, or an address is given twice.
    """
    if not workers or len(set(workers)) < len(workers):
        raise UsageError(
            f"workers {', '.join(map(str, workers)) or 'none'}: give each address once, at least one"
        )
    _check_free(port)
    server = _dispatcher(port, workers)
    started()
    there: set[Address] = set()
    while not stop.wait(CHECK_SECONDS):
        now = {worker for worker in workers if worker.answers()}
        for worker in sorted(now - there):
            tell(f"worker {worker} is there; {len(now)} of {len(workers)}")
        lost = ", ".join(str(worker) for worker in sorted(there - now))
        if lost:
            server.stop()
            server = _dispatcher(port, workers)
            tell(f"worker {lost} is lost; {len(now)} of {len(workers)}: trainings that use the service end")
        there = now
    server.stop()


def serve_worker(
    address: Address,
    *,
    dispatcher: Address,
    stop: threading.Event,
    started: Callable[[], None],
    tell: Callable[[str], None],
    wait: float = 0,
) -> None:
    """Run a worker until ``stop`` is set.

    Args:
        address: what the dispatcher and the trainings reach this machine by, and the port to listen on.
        dispatcher: where the dispatcher is; it must know this worker's address.
        stop: when to end.
        started: called when the dispatcher has taken the worker in.
        tell: takes a line where the dispatcher has to be waited for.
        wait: how long at most to do so, in seconds: what starts servers on several machines starts them in any order.

    Raises:
        UsageError: the port is taken, there is no dispatcher, or it knows no worker of this address.
    """
    _check_free(address.port)
    _await(dispatcher, wait, worker=address, stop=stop, tell=tell)
    if stop.is_set():
        return
    service = _tf_service()
    config = service.WorkerConfig(
        dispatcher_address=str(dispatcher),
        worker_address=str(address),
        port=address.port,
        protocol="grpc",
        heartbeat_interval_ms=HEARTBEAT_MS,
        dispatcher_timeout_ms=CONNECT_SECONDS * 1000,
    )
    try:
        server = service.WorkerServer(config)
    except RuntimeError as error:
        raise _refused(error, address, dispatcher) from error
    started()
    stop.wait()
    del server  # which stops it: it has no public method for that


def _await(
    dispatcher: Address, wait: float, *, worker: Address, stop: threading.Event, tell: Callable[[str], None]
) -> None:
    """Return when the dispatcher answers or ``stop`` is set. Raises UsageError after ``wait`` seconds."""
    if dispatcher.answers():
        return
    if wait:
        tell(f"no dispatcher answers at {dispatcher.url} yet: waiting {wait:g} s for it")
    until = time.monotonic() + wait
    while time.monotonic() < until:
        if stop.wait(AGAIN_SECONDS) or dispatcher.answers():
            return
    raise UsageError(
        f"no dispatcher answers at {dispatcher.url}: "
        f"start it, with `reelmill serve dispatcher --port {dispatcher.port} --worker {worker}`"
    )


def _refused(error: RuntimeError, address: Address, dispatcher: Address) -> UsageError:
    known = re.search(r"Configured workers list: \[(.*?)\]", str(error))
    if known is None:
        return UsageError(f"{dispatcher.url} took no worker in; is it a dispatcher's address? {error}")
    return UsageError(
        f"the dispatcher at {dispatcher.url} was started for workers {known[1]}, not for {address}: "
        f"set --host and --port to one of those, or start it with --worker {address} too"
    )


def _dispatcher(port: int, workers: Sequence[Address]) -> Any:
    service = _tf_service()
    config = service.DispatcherConfig(
        port=port,
        protocol="grpc",
        worker_addresses=[str(worker) for worker in workers],
        job_gc_check_interval_ms=FORGET_MS // 2,
        job_gc_timeout_ms=FORGET_MS,
    )
    return service.DispatchServer(config)


def _check_free(port: int) -> None:
    """Raise UsageError where another server listens: gRPC would share the port with it."""
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # connections of a server that ended count not
        try:
            probe.bind(("", port))
        except OSError as error:
            raise UsageError(
                f"port {port} cannot be listened on ({error.strerror}): choose another"
            ) from None


def _tf_service() -> Any:
    with quiet_import():
        import tensorflow as tf
    return tf.data.experimental.service
