"""Probing in a child process, so that a file that hangs or kills the prober costs one clip."""

import json
import sys

from reelmill.datasets.manifest import Probe
from reelmill.features.video.line_server import Child

MEMORY_BYTES = 4 << 30
"""Address space of the prober."""


class Prober:
    """Serves probes from a child process that is started when needed and replaced when it dies.

    Args:
        timeout_s: seconds that one file may take.
    """

    def __init__(self, *, timeout_s: float = 60.0) -> None:
        self.timeout_s = timeout_s
        command = [sys.executable, "-m", "reelmill.features.video.probe"]
        self._child = Child(command, memory_bytes=MEMORY_BYTES)

    def probe(self, path: str) -> Probe:
        """Probe a local file; see :func:`reelmill.features.video.probe.probe`.

        A prober that dies or takes too long gives ``probe_crashed`` or ``timeout``.
        """
        try:
            answer = self._child.ask(json.dumps(path), timeout_s=self.timeout_s)
        except TimeoutError:
            return Probe(probe_error="timeout", probe_detail=f"probing took longer than {self.timeout_s:g} s")
        except ChildProcessError as error:
            detail = f"the prober ended with status {error.errno}"
            return Probe(probe_error="probe_crashed", probe_detail=detail)
        return Probe(**json.loads(answer))

    def close(self) -> None:
        """End the child process."""
        self._child.close()
