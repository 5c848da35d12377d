"""``reelmill serve``: the servers of a tf.data service."""

import signal
import threading

import click

from reelmill.pipelines.commands.common import say
from reelmill.train.loading.service_server import Address, own_host, serve_dispatcher, serve_worker

PORT = click.IntRange(1, 65535)


@click.group("serve")
def command() -> None:
    """Load on other machines, where one has too few cores for its GPUs.

    One dispatcher and any number of workers make a tf.data service; a training with its address as `service`
    takes its batches from the workers, in the same order as without. Whoever reaches the ports can make the
    workers read any file: for trusted networks only.
    """


@command.command("dispatcher")
@click.option("--port", type=PORT, default=5050, show_default=True, help="Port to listen on.")
@click.option(
    "--worker",
    "workers",
    multiple=True,
    required=True,
    metavar="HOST:PORT",
    help="Address of a worker; give all that there will be, one --worker for each.",
)
def dispatcher(port: int, workers: tuple[str, ...]) -> None:
    """Start the dispatcher, which workers and trainings turn to; until Ctrl-C."""
    stop = _stopped_by_signals()
    addresses = [Address.parse(worker, name="--worker") for worker in workers]
    here = Address(own_host(addresses), port)

    def started() -> None:
        plural = "s" if len(addresses) > 1 else ""
        say(f"dispatcher {here.url} for {len(addresses)} worker{plural}; Ctrl-C ends it")
        for worker in addresses:
            say(
                f"next, on {worker.host}: reelmill serve worker --port {worker.port} --host {worker.host} "
                f"--dispatcher {here.url}"
            )
        _say_how_to_load(here)

    serve_dispatcher(port, workers=addresses, stop=stop, started=started, tell=say)


@command.command("worker")
@click.option("--port", type=PORT, default=5051, show_default=True, help="Port to listen on.")
@click.option(
    "--dispatcher",
    required=True,
    metavar="grpc://HOST:PORT",
    help="Address of the dispatcher.",
)
@click.option(
    "--host",
    metavar="NAME",
    help="What others reach this machine by, as in the dispatcher's --worker  [localhost beside the dispatcher, "
    "else the machine's name].",
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for a dispatcher that is not there yet.",
)
def worker(port: int, dispatcher: str, host: str | None, wait: float) -> None:
    """Start a worker, which reads and decodes; until Ctrl-C.

    It reads the dataset's files itself, under the paths that the training names.
    """
    stop = _stopped_by_signals()
    chief = Address.parse(dispatcher, name="--dispatcher")
    here = Address.parse(f"{host or own_host([chief])}:{port}", name="--host")

    def started() -> None:
        say(f"worker {here} of {chief.url}; Ctrl-C ends it")
        _say_how_to_load(chief)

    serve_worker(here, dispatcher=chief, stop=stop, started=started, tell=say, wait=wait)


def _say_how_to_load(dispatcher: Address) -> None:
    say(
        f"once all workers run: reelmill train --service {dispatcher.url}, "
        f'or reelmill.load(..., service="{dispatcher.url}")'
    )


def _stopped_by_signals() -> threading.Event:
    """Set by Ctrl-C and by SIGTERM."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop
