"""A local worker process: Beam's own harness, quiet and bound to the process that started it.

Beam's multi_processing mode starts its harness as it is: that one writes its start-up to the terminal, prints
tracebacks on Ctrl-C, and lives on for a while when its parent is killed.
"""

import ctypes
import logging
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Run until the main process ends the work or itself ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to handle
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:
        sys.exit("the main process is gone")
    if "REELMILL_DEBUG" not in os.environ:
        # Beam prints every traceback here besides sending it to the main process
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    # with a handler in place nobody calls basicConfig; what matters reaches the main process through Beam
    logging.getLogger().addHandler(logging.NullHandler())

    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
