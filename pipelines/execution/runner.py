"""Running a Beam graph: the local default, any other runner through options, and errors made readable."""

import contextlib
import difflib
import io
import logging
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from reelmill.datasets.errors import BuildError, ReelmillError, UsageError

WORKER_MODULE = "reelmill.pipelines.execution.worker"

_OUR_ERROR = re.compile(r"^(?:reelmill\.datasets\.errors\.\w+: |\w+: \[Errno \d+\] )(.+)$", re.MULTILINE)
"""The last line of a worker's traceback, for errors that are the user's to know."""
_BEAMS_WORDS = re.compile(r"^\[Errno \d+\] | \[while running .*")


def available_cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def run_graph(
    build: Callable[[Any], None], *, beam_options: Sequence[str], workers: int | None = None
) -> dict[str, int]:
    """Build a graph, run it to its end and return its counters.

    Args:
        build: takes a ``beam.Pipeline`` and applies the transforms.
        beam_options: Beam's own options; without a runner, Beam's local runner in multi_processing mode.
        workers: local worker processes; None: one for each core.

    Returns:
        The committed value of each counter by name.

    Raises:
        UsageError: an option is none of Beam's.
        BuildError: a worker gave up; the message is the worker's last line.
    """
    with _quiet(), _interruptible():
        import apache_beam as beam
        from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

        given = {option.split("=")[0].lstrip("-") for option in beam_options if option.startswith("-")}
        options = _parse(PipelineOptions, beam_options, given)
        if "direct_num_workers" not in given:
            options.view_as(DirectOptions).direct_num_workers = workers or available_cores()
        local = options.view_as(StandardOptions).runner in {None, "DirectRunner", "FnApiRunner"}
        processes = "direct_running_mode" not in given
        runner = _local_runner(options, processes=processes) if local else None
        try:
            pipeline = beam.Pipeline(runner=runner, options=options)
        except ValueError as error:
            raise UsageError(f"Beam: {error}") from None
        try:
            build(pipeline)
            result = pipeline.run()
            result.wait_until_finish()
        except (ReelmillError, OSError, RuntimeError) as error:
            # from another process comes a RuntimeError with the text of a traceback
            said = _OUR_ERROR.findall(str(error)) if isinstance(error, RuntimeError) else [str(error)]
            if not said:
                raise
            message = _BEAMS_WORDS.sub("", said[-1])
            raise BuildError(
                f"{message}; what is finished is kept, the same command goes on from there"
            ) from error
        counters = result.metrics().query()["counters"]
    return {c.key.metric.name: int(c.committed or 0) for c in counters}


def _parse(parser: Any, beam_options: Sequence[str], given: set[str]) -> Any:
    """Beam's options, without its ways of reporting wrong ones: a usage text, or a remark in the log."""
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            options = parser(list(beam_options))
            known = options.get_all_options()
        except SystemExit:
            raise UsageError(f"Beam: {said.getvalue().strip().splitlines()[-1]}") from None
    for name in sorted(given):
        if name.removeprefix("no_") not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise UsageError(
                f"Beam has no option {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
            )
    return options


def _local_runner(options: Any, *, processes: bool) -> Any:
    """Beam's in-process runner, as DirectRunner makes it when it does not reach for a downloaded one.

    Args:
        options: the pipeline's.
        processes: work in processes of :mod:`reelmill.pipelines.execution.worker`; else as
            ``direct_running_mode`` says.
    """
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.fn_api_runner import fn_runner
    from apache_beam.runners.portability.portable_runner import JobServiceHandle
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    provision = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    command = f"exec {shlex.quote(sys.executable)} -m {WORKER_MODULE}"
    return fn_runner.FnApiRunner(
        default_environment=SubprocessSDKEnvironment.from_command_string(command) if processes else None,
        provision_info=fn_runner.ExtendedProvisionInfo(provision),
    )


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """End the local workers on Ctrl-C before Beam tidies up: it would wait for them to end by themselves."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    hook = threading.excepthook

    def interrupt(number: int, frame: FrameType | None) -> None:
        threading.excepthook = lambda _: None  # Beam's threads complain that their workers are gone
        for pid in _local_workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if callable(before):
            before(number, frame)

    if callable(before):
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        threading.excepthook = hook


def _local_workers() -> list[int]:
    """Process numbers of this process's own workers."""
    found = []
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            for pid in (thread / "children").read_text().split():
                if WORKER_MODULE.encode() in Path("/proc", pid, "cmdline").read_bytes():
                    found.append(int(pid))
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Beam's remarks off the terminal; what goes wrong is raised as an exception besides."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        root.setLevel(level)
